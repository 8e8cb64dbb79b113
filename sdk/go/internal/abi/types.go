package abi

// Message is a message on its way in.
type Message struct {
	// ID is unique in the cluster.
	ID string
	// Type is the event type, for example chat_message.
	Type string
	// Sender is the ID of the user who sent it; empty where a backend named none.
	Sender string
	// To is where it goes; nil where nobody was named.
	To *Destination
	// Payload is JSON text.
	Payload string
	// Timestamp is when the server took it in: milliseconds since 1970.
	Timestamp uint64
}

// Kind says what a Destination is.
type Kind byte

// The kinds of destinations.
const (
	ToSender Kind = iota
	ToUser
	ToRoom
	ToEveryone
)

// Destination is where a message goes.
type Destination struct {
	Kind Kind
	// Name of the user or the room.
	Name string
}

// Draft is a message that a plugin makes.
type Draft struct {
	Type string
	// To is nil for nobody.
	To *Destination
	// Payload is JSON text.
	Payload string
}

// OutcomeKind says what an Outcome is.
type OutcomeKind byte

// The kinds of outcomes.
const (
	IsUnchanged OutcomeKind = iota
	IsChanged
	IsDropped
)

// Outcome is what a transformation makes of a message.
type Outcome struct {
	Kind  OutcomeKind
	Draft Draft
}

// ActionKind says what an Action is.
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

// Action is something that the server is to do.
type Action struct {
	Kind  ActionKind
	Draft Draft
	// Room of IsJoin and IsLeave.
	Room          string
	Disconnection Disconnection
}

// Disconnection is how a connection is to be closed, or was.
type Disconnection struct {
	Code   uint16
	Reason string
}

// Client is one connection of a user.
type Client struct {
	Connection string
	User       string
	// Claims of its token as JSON text.
	Claims  string
	Address string
	// ConnectedAt is in milliseconds since 1970.
	ConnectedAt uint64
}

// Rejection is a refusal that the client is told. It is an error.
type Rejection struct {
	// Code is for programs: 1 to 64 of a-z 0-9 _ . -
	Code string
	// Reason is for people.
	Reason string
}

func (r *Rejection) Error() string { return r.Code + ": " + r.Reason }

// Snapshot is the memory of an instance: its author numbers the formats of Data.
type Snapshot struct {
	Format uint32
	Data   []byte
}
