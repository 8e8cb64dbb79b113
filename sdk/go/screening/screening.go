// Package screening is for plugins that both validate and transform, so that the server needs only one call. Import the
// packages validation and transformation as well.
package screening

import (
	"signalbox/plugin"
	"signalbox/plugin/internal/abi"
)

var screen func(plugin.Message) (plugin.Outcome, error)

// Register sets the function that returns the refusal of validate or, if that accepts the message, the result of
// transform.
func Register(f func(plugin.Message) (plugin.Outcome, error)) { screen = f }

//go:wasmexport signalbox:plugin/screening@1.0.0#screen
func export(idAt, idLen, typeAt, typeLen, senderAt, senderLen, hasTo, toKind, toAt, toLen, payloadAt, payloadLen uint32,
	timestamp uint64) uint32 {
	defer abi.Guard()
	message := abi.MessageOf(idAt, idLen, typeAt, typeLen, senderAt, senderLen, hasTo, toKind, toAt, toLen, payloadAt,
		payloadLen, timestamp)
	return abi.Outcomes(screen(message))
}
