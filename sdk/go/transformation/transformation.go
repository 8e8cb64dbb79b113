// Package transformation is for plugins that rewrite messages.
package transformation

import (
	"signalbox/plugin"
	"signalbox/plugin/internal/abi"
)

var transform func(plugin.Message) (plugin.Outcome, error)

// Register sets the function that transforms each matching message. It returns plugin.Unchanged, Changed or Dropped, or
// refuses the message with plugin.Reject.
func Register(f func(plugin.Message) (plugin.Outcome, error)) { transform = f }

//go:wasmexport signalbox:plugin/transformation@1.0.0#transform
func export(idAt, idLen, typeAt, typeLen, senderAt, senderLen, hasTo, toKind, toAt, toLen, payloadAt, payloadLen uint32,
	timestamp uint64) uint32 {
	defer abi.Guard()
	message := abi.MessageOf(idAt, idLen, typeAt, typeLen, senderAt, senderLen, hasTo, toKind, toAt, toLen, payloadAt,
		payloadLen, timestamp)
	return abi.Outcomes(transform(message))
}
