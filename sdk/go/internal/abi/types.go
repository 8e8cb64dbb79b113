package abi

// Message is an incoming message.
type Message struct {
	// ID is unique in the cluster.
	ID string
	// Type is the event type, for example chat_message.
	Type string
	// Sender is the ID of the sending user; empty if a backend sent the message without a sender.
	Sender string
	// To is the destination; nil if no receiver is named.
	To *Destination
	// Payload is JSON text.
	Payload string
	// Timestamp is when the server received the message, in milliseconds since 1970.
	Timestamp uint64
}

// Kind is the kind of a Destination.
type Kind byte

// The kinds of destinations.
const (
	ToSender Kind = iota
	ToUser
	ToRoom
	ToEveryone
)

// Destination names the receivers of a message.
type Destination struct {
	Kind Kind
	// Name is the ID of the user or the name of the room.
	Name string
}

// Draft is a message that a plugin creates.
type Draft struct {
	Type string
	// To is the destination; nil means no receiver.
	To *Destination
	// Payload is JSON text.
	Payload string
}

// OutcomeKind is the kind of an Outcome.
type OutcomeKind byte

// The kinds of outcomes.
const (
	IsUnchanged OutcomeKind = iota
	IsChanged
	IsDropped
)

// Outcome is the result of a transformation.
type Outcome struct {
	Kind  OutcomeKind
	Draft Draft
}

// ActionKind is the kind of an Action.
type ActionKind byte

// The kinds of actions.
const (
	IsDeliver ActionKind = iota
	IsSend
	IsAnnounce
	IsJoin
	IsLeave
	IsDisconnect
)

// Action is something that the server should do after a call.
type Action struct {
	Kind  ActionKind
	Draft Draft
	// Room is set for IsJoin and IsLeave.
	Room          string
	Disconnection Disconnection
}

// Reply is the answer to a request.
type Reply struct {
	// Data is JSON text.
	Data string
	// Actions are carried out before the answer is sent.
	Actions []Action
}

// Disconnection is how a connection should be closed, or was closed.
type Disconnection struct {
	Code   uint16
	Reason string
}

// Client is a connection of a user.
type Client struct {
	Connection string
	User       string
	// Claims are the claims of the token, as JSON text.
	Claims  string
	Address string
	// ConnectedAt is in milliseconds since 1970.
	ConnectedAt uint64
}

// Member is a user in a room.
type Member struct {
	User string
	// Connections is the number of the user's connections in the room.
	Connections uint32
	// Info is the claim info of the user's token as JSON text; empty without the claim.
	Info string
}

// KeptMessage is a message that the history of a room keeps.
type KeptMessage struct {
	// Offset is its number in the room, from 1.
	Offset uint64
	Type   string
	// Sender is the ID of the sending user; empty if the platform sent the message.
	Sender string
	// Payload is JSON text.
	Payload string
	// Timestamp is when it was sent, in milliseconds since 1970.
	Timestamp uint64
}

// Rejection is a refusal that is sent to the client. It is an error.
type Rejection struct {
	// Code is for programs: 1 to 64 of a-z 0-9 _ . -
	Code string
	// Reason is for people.
	Reason string
}

func (r *Rejection) Error() string { return r.Code + ": " + r.Reason }

// Snapshot is the memory of an instance. The plugin's author numbers the formats of Data.
type Snapshot struct {
	Format uint32
	Data   []byte
}
