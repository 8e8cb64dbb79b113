// Package plugin is for Signalbox plugins in Go: the values that the interfaces of signalbox:plugin share, and what the
// server offers. What a plugin does it registers with the packages beside this one, in an init function:
//
//	validation.Register(func(message plugin.Message) error { ... })
//
// A plugin exports what it imports: import only the packages of the interfaces that it has.
package plugin

import (
	"encoding/json"

	"signalbox/plugin/internal/abi"
	"signalbox/plugin/internal/strictjson"
)

// Message is a message on its way in.
type Message = abi.Message

// Destination is where a message goes: Sender, User, Room or Everyone.
type Destination = abi.Destination

// Draft is a message that a plugin makes.
type Draft = abi.Draft

// Outcome is what a transformation makes of a message: Unchanged, Changed or Dropped.
type Outcome = abi.Outcome

// Action is something that the server is to do.
type Action = abi.Action

// Client is one connection of a user.
type Client = abi.Client

// Disconnection is how a connection is to be closed, or was.
type Disconnection = abi.Disconnection

// Rejection is a refusal that the client is told.
type Rejection = abi.Rejection

// The kinds of destinations, for Destination.Kind.
const (
	ToSender   = abi.ToSender
	ToUser     = abi.ToUser
	ToRoom     = abi.ToRoom
	ToEveryone = abi.ToEveryone
)

// Reject is an error that refuses a message: code is for programs (1 to 64 of a-z 0-9 _ . -), reason for people. A StoreError
// refuses too; any other error fails the call.
func Reject(code, reason string) error { return &Rejection{Code: code, Reason: reason} }

// Sender is the connection that the call is about.
func Sender() *Destination { return &Destination{Kind: abi.ToSender} }

// User is every connection of a user.
func User(id string) *Destination { return &Destination{Kind: abi.ToUser, Name: id} }

// Room is every member of a room.
func Room(name string) *Destination { return &Destination{Kind: abi.ToRoom, Name: name} }

// Everyone is every connection of the cluster.
func Everyone() *Destination { return &Destination{Kind: abi.ToEveryone} }

// NewDraft is a message with payload as JSON. It panics where payload has no JSON form, which fails the call.
func NewDraft(eventType string, to *Destination, payload any) Draft {
	text, err := json.Marshal(payload)
	if err != nil {
		panic(err)
	}
	return Draft{Type: eventType, To: to, Payload: string(text)}
}

// Parse reads a payload. What does not fit is a refusal with the code invalid_payload, and so is what receivers could read
// differently: the same key twice in an object, half of a surrogate pair, a number beyond 1.8e308, more than 100 levels.
//
// Unlike encoding/json it takes a field from the member with exactly its name, and null for a pointer or an interface alone: a
// field that a client may leave out or set to null is a pointer. Numbers in an any are float64, exact to 2^53.
func Parse(message Message, into any) error {
	if err := strictjson.Parse(message.Payload, into); err != nil {
		return Reject("invalid_payload", "the payload "+err.Error())
	}
	return nil
}

// Unchanged lets a message go on as it is.
func Unchanged() Outcome { return Outcome{} }

// Dropped lets it go no further.
func Dropped() Outcome { return Outcome{Kind: abi.IsDropped} }

// Changed lets it go on as draft.
func Changed(draft Draft) Outcome { return Outcome{Kind: abi.IsChanged, Draft: draft} }

// WithPayload lets it go on with another payload.
func WithPayload(message Message, payload any) Outcome {
	return Changed(NewDraft(message.Type, message.To, payload))
}

// Deliver delivers the message that is being handled, where it is addressed.
func Deliver() Action { return Action{Kind: abi.IsDeliver} }

// Send sends a message in the sender's name.
func Send(draft Draft) Action { return Action{Kind: abi.IsSend, Draft: draft} }

// Announce sends a message in the name of the platform.
func Announce(draft Draft) Action { return Action{Kind: abi.IsAnnounce, Draft: draft} }

// Reply sends a message of the platform back to the connection that the call is about.
func Reply(eventType string, payload any) Action {
	return Announce(NewDraft(eventType, Sender(), payload))
}

// Join puts the connection into a room.
func Join(room string) Action { return Action{Kind: abi.IsJoin, Room: room} }

// Leave takes it out of a room.
func Leave(room string) Action { return Action{Kind: abi.IsLeave, Room: room} }

// Disconnect closes it; below 4500 the client comes back by itself.
func Disconnect(code uint16, reason string) Action {
	return Action{Kind: abi.IsDisconnect, Disconnection: Disconnection{Code: code, Reason: reason}}
}
