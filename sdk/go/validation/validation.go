// Package validation is for plugins that refuse messages.
package validation

import (
	"signalbox/plugin"
	"signalbox/plugin/internal/abi"
)

var validate func(plugin.Message) error

// Register sets the function that checks each matching message: nil accepts it, plugin.Reject refuses it.
func Register(f func(plugin.Message) error) { validate = f }

//go:wasmexport signalbox:plugin/validation@1.0.0#validate
func export(idAt, idLen, typeAt, typeLen, senderAt, senderLen, hasTo, toKind, toAt, toLen, payloadAt, payloadLen uint32,
	timestamp uint64) uint32 {
	defer abi.Guard()
	message := abi.MessageOf(idAt, idLen, typeAt, typeLen, senderAt, senderLen, hasTo, toKind, toAt, toLen, payloadAt,
		payloadLen, timestamp)
	return abi.Refused(validate(message))
}
