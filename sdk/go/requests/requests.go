// Package requests is for plugins that answer requests: messages whose sender waits for data.
package requests

import (
	"encoding/json"

	"signalbox/plugin"
	"signalbox/plugin/internal/abi"
)

// Reply is the answer to a request.
type Reply = abi.Reply

var (
	types   []string
	respond func(plugin.Message) (Reply, error)
)

// Register sets the function that answers requests, and the types of the requests, or patterns that end in *. An error
// refuses the request, as in the package validation.
func Register(f func(plugin.Message) (Reply, error), requestTypes ...string) {
	types, respond = requestTypes, f
}

// NewReply creates a reply with data as JSON. The actions are carried out before it is sent. It panics if data has no
// JSON form, which fails the call.
func NewReply(data any, actions ...plugin.Action) Reply {
	text, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	return Reply{Data: string(text), Actions: actions}
}

//go:wasmexport signalbox:plugin/requests@1.0.0#request-types
func exportTypes() uint32 {
	defer abi.Guard()
	abi.Begin()
	return abi.Texts(types)
}

//go:wasmexport signalbox:plugin/requests@1.0.0#respond
func exportRespond(idAt, idLen, typeAt, typeLen, senderAt, senderLen, hasTo, toKind, toAt, toLen, payloadAt, payloadLen uint32,
	timestamp uint64) uint32 {
	defer abi.Guard()
	message := abi.MessageOf(idAt, idLen, typeAt, typeLen, senderAt, senderLen, hasTo, toKind, toAt, toLen, payloadAt,
		payloadLen, timestamp)
	return abi.Replies(respond(message))
}
