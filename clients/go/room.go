package client

import "context"

// JoinOptions tell what the application wants in a room.
type JoinOptions struct {
	// Last asks for as many old messages.
	Last int
	// Presence asks for the users in the room.
	Presence bool
	// Token is a token for the room, if its rules want one.
	Token string
	// GetToken returns a token for the room. It is called before the first join, and when the token has expired, never twice at
	// the same time. An error that wraps ErrTokenDenied ends the membership; after others it is called again.
	GetToken func(ctx context.Context, room string) (string, error)
}

// same tells whether a join with other options would be the same. Functions cannot be compared.
func (o JoinOptions) same(other JoinOptions) bool {
	return o.Last == other.Last && o.Presence == other.Presence && o.Token == other.Token &&
		(o.GetToken == nil) == (other.GetToken == nil)
}

// Room is a room: its callbacks, its users, and the calls for it.
type Room struct {
	name       string
	client     *Client
	presence   Presence
	recovered  *bool
	byType     map[string]*callbacks[Message]
	onPresence callbacks[Presence]
	onRecovery callbacks[Recovery]
	onLeft     callbacks[*Error]
	membership *membership
}

// Name returns the name of the room.
func (r *Room) Name() string {
	return r.name
}

// Joined tells whether the client is a member now.
func (r *Room) Joined() bool {
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	return r.membership != nil && r.membership.joined
}

// Presence returns the users, if the room was joined with Presence.
func (r *Room) Presence() Presence {
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	return r.presence
}

// Recovered tells whether the last join of the application recovered all messages. known is false if there was nothing to recover.
func (r *Room) Recovered() (recovered, known bool) {
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	if r.recovered == nil {
		return false, false
	}
	return *r.recovered, true
}

// On calls f with each message of this type to the room; "*" stands for every type. It returns the function that ends it.
// Callbacks outlive Leave: end them if the client is not to remember the room.
func (r *Room) On(eventType string, f func(Message)) (end func()) {
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	r.client.rooms.keep(r)
	list := r.byType[eventType]
	if list == nil {
		list = &callbacks[Message]{}
		r.byType[eventType] = list
	}
	return r.client.locked(list.add(f))
}

// OnPresence calls f with the users of the room after each change.
func (r *Room) OnPresence(f func(Presence)) (end func()) {
	return addTo(r, &r.onPresence, f)
}

// OnRecovery calls f after each rejoin, before any later message of the room.
func (r *Room) OnRecovery(f func(Recovery)) (end func()) {
	return addTo(r, &r.onRecovery, f)
}

// OnLeft calls f when the server ended the membership, or refused it, for good.
func (r *Room) OnLeft(f func(*Error)) (end func()) {
	return addTo(r, &r.onLeft, f)
}

func addTo[T any](r *Room, list *callbacks[T], f func(T)) func() {
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	r.client.rooms.keep(r)
	return r.client.locked(list.add(f))
}

func (r *Room) hasCallbacks() bool {
	for _, list := range r.byType {
		if len(list.list) > 0 {
			return true
		}
	}
	return len(r.onPresence.list)+len(r.onRecovery.list)+len(r.onLeft.list) > 0
}

// Join joins, see Client.Join.
func (r *Room) Join(ctx context.Context, options JoinOptions) error {
	return r.client.join(ctx, r, options)
}

// Leave leaves, see Client.Leave.
func (r *Room) Leave(ctx context.Context) error {
	return r.client.Leave(ctx, r.name)
}

// Send sends a message to the room, see Client.Send.
func (r *Room) Send(ctx context.Context, eventType string, payload any) (Answer, error) {
	return r.client.SendMessage(ctx, Outgoing{Type: eventType, Payload: payload, Room: r.name})
}

// History reads messages, see Client.History.
func (r *Room) History(ctx context.Context, before int64, limit int) (Page, error) {
	return r.client.History(ctx, r.name, before, limit)
}
