// Package events is for plugins that handle custom event types.
package events

import (
	"signalbox/plugin"
	"signalbox/plugin/internal/abi"
)

var (
	types  []string
	handle func(plugin.Message) ([]plugin.Action, error)
)

// Register sets the handler and the event types, or patterns that end in *, that it handles.
func Register(f func(plugin.Message) ([]plugin.Action, error), eventTypes ...string) {
	types, handle = eventTypes, f
}

//go:wasmexport signalbox:plugin/events@1.0.0#event-types
func exportTypes() uint32 {
	defer abi.Guard()
	abi.Begin()
	return abi.Texts(types)
}

//go:wasmexport signalbox:plugin/events@1.0.0#handle
func exportHandle(idAt, idLen, typeAt, typeLen, senderAt, senderLen, hasTo, toKind, toAt, toLen, payloadAt, payloadLen uint32,
	timestamp uint64) uint32 {
	defer abi.Guard()
	message := abi.MessageOf(idAt, idLen, typeAt, typeLen, senderAt, senderLen, hasTo, toKind, toAt, toLen, payloadAt,
		payloadLen, timestamp)
	return abi.Actions(handle(message))
}
