// Package plugin is for Signalbox plugins in Go. It has the types that the interfaces of signalbox:plugin share, and
// the functions of the server. A plugin registers its own functions with the packages next to this one, in an init
// function:
//
//	validation.Register(func(message plugin.Message) error { ... })
//
// A plugin exports the interfaces whose packages it imports: import only those that it implements.
package plugin

import (
	"encoding/json"

	"signalbox/plugin/internal/abi"
	"signalbox/plugin/internal/strictjson"
)

// Message is an incoming message.
type Message = abi.Message

// Destination names the receivers of a message: Sender, User, Room or Everyone.
type Destination = abi.Destination

// Draft is a message that a plugin creates.
type Draft = abi.Draft

// Outcome is the result of a transformation: Unchanged, Changed or Dropped.
type Outcome = abi.Outcome

// Action is something that the server should do after a call.
type Action = abi.Action

// Client is a connection of a user.
type Client = abi.Client

// Disconnection is how a connection should be closed, or was closed.
type Disconnection = abi.Disconnection

// Member is a user in a room.
type Member = abi.Member

// KeptMessage is a message that the history of a room keeps.
type KeptMessage = abi.KeptMessage

// Rejection is a refusal that is sent to the client.
type Rejection = abi.Rejection

// The kinds of destinations, for Destination.Kind.
const (
	ToSender   = abi.ToSender
	ToUser     = abi.ToUser
	ToRoom     = abi.ToRoom
	ToEveryone = abi.ToEveryone
)

// Reject returns an error that refuses a message, a connection or a join. code is for programs (1 to 64 of
// a-z 0-9 _ . -), reason is for people. A StoreError or RoomError refuses as well; any other error fails the call.
func Reject(code, reason string) error { return &Rejection{Code: code, Reason: reason} }

// Sender addresses the connection that the call is about.
func Sender() *Destination { return &Destination{Kind: abi.ToSender} }

// User addresses every connection of a user.
func User(id string) *Destination { return &Destination{Kind: abi.ToUser, Name: id} }

// Room addresses every member of a room.
func Room(name string) *Destination { return &Destination{Kind: abi.ToRoom, Name: name} }

// Everyone addresses every connection of the cluster.
func Everyone() *Destination { return &Destination{Kind: abi.ToEveryone} }

// NewDraft creates a message with payload as JSON. It panics if payload has no JSON form, which fails the call.
func NewDraft(eventType string, to *Destination, payload any) Draft {
	text, err := json.Marshal(payload)
	if err != nil {
		panic(err)
	}
	return Draft{Type: eventType, To: to, Payload: string(text)}
}

// Parse reads a payload into the value that into points to. It refuses a payload that does not fit with the code
// invalid_payload, and also JSON that receivers could read differently: the same key twice in an object, half of a
// surrogate pair, a number beyond 1.8e308, more than 100 levels.
//
// Unlike encoding/json, it matches names exactly and accepts null only for a pointer or an interface: use a pointer for
// a field that a client may omit or set to null. Numbers in an any are float64, exact up to 2^53.
func Parse(message Message, into any) error {
	if err := strictjson.Parse(message.Payload, into); err != nil {
		return Reject("invalid_payload", "the payload "+err.Error())
	}
	return nil
}

// Unchanged lets the message continue unchanged.
func Unchanged() Outcome { return Outcome{} }

// Dropped ends the message: it is not delivered, and the sender gets no error.
func Dropped() Outcome { return Outcome{Kind: abi.IsDropped} }

// Changed lets the message continue as draft.
func Changed(draft Draft) Outcome { return Outcome{Kind: abi.IsChanged, Draft: draft} }

// WithPayload lets the message continue with a new payload.
func WithPayload(message Message, payload any) Outcome {
	return Changed(NewDraft(message.Type, message.To, payload))
}

// Deliver delivers the handled message to its destination.
func Deliver() Action { return Action{Kind: abi.IsDeliver} }

// Send sends a message in the sender's name.
func Send(draft Draft) Action { return Action{Kind: abi.IsSend, Draft: draft} }

// Announce sends a message in the name of the platform.
func Announce(draft Draft) Action { return Action{Kind: abi.IsAnnounce, Draft: draft} }

// Reply sends a message from the platform to the connection that the call is about.
func Reply(eventType string, payload any) Action {
	return Announce(NewDraft(eventType, Sender(), payload))
}

// Join adds the connection to a room.
func Join(room string) Action { return Action{Kind: abi.IsJoin, Room: room} }

// Leave removes the connection from a room.
func Leave(room string) Action { return Action{Kind: abi.IsLeave, Room: room} }

// Disconnect closes the connection with a code of 4000 to 4999. Below 4500 the client reconnects by itself.
func Disconnect(code uint16, reason string) Action {
	return Action{Kind: abi.IsDisconnect, Disconnection: Disconnection{Code: code, Reason: reason}}
}
