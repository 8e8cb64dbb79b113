// Package screening is for plugins that validate and transform, so that the server can ask for both in one call. Import
// the packages validation and transformation too.
package screening

import (
	"signalbox/plugin"
	"signalbox/plugin/internal/abi"
)

var screen func(plugin.Message) (plugin.Outcome, error)

// Register says what validate and, where that accepts the message, transform would.
func Register(f func(plugin.Message) (plugin.Outcome, error)) { screen = f }

//go:wasmexport signalbox:plugin/screening@1.0.0#screen
func export(idAt, idLen, typeAt, typeLen, senderAt, senderLen, hasTo, toKind, toAt, toLen, payloadAt, payloadLen uint32,
	timestamp uint64) uint32 {
	defer abi.Guard()
	message := abi.MessageOf(idAt, idLen, typeAt, typeLen, senderAt, senderLen, hasTo, toKind, toAt, toLen, payloadAt,
		payloadLen, timestamp)
	return abi.Outcomes(screen(message))
}
