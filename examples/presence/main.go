// Presence answers `presence.who` with the users in a room, and tells a room who joins and leaves it.
package main

import (
	"slices"
	"strings"

	"signalbox/plugin"
	"signalbox/plugin/lifecycle"
	"signalbox/plugin/membership"
	"signalbox/plugin/requests"
)

var config struct {
	// Prefix begins the names of the rooms that get notices. If it is empty, all rooms get them.
	Prefix string `json:"prefix"`
}

func init() {
	lifecycle.OnInit(func(text string) error {
		return lifecycle.Config(text, &config)
	})
	requests.Register(who, "presence.who")
	membership.Register(joined, left)
}

// who answers with the users in the room that the payload names. A client must be one of them; a backend need not.
func who(message plugin.Message) (requests.Reply, error) {
	var room string
	if err := plugin.Parse(message, &room); err != nil {
		return requests.Reply{}, err
	}
	members, err := plugin.RoomMembers(room)
	if err != nil {
		return requests.Reply{}, err
	}
	users := []string{}
	for _, member := range members {
		users = append(users, member.User)
	}
	if message.Sender != "" && !slices.Contains(users, message.Sender) {
		return requests.Reply{}, plugin.Reject("not_a_member", "join the room to see who is in it")
	}
	return requests.NewReply(users), nil
}

// joined reports the first connection of a user in the room.
func joined(client plugin.Client, room string, connections uint32) []plugin.Action {
	if connections > 1 {
		return nil
	}
	return notice("presence.joined", client.User, room)
}

// left reports that the last connection of a user has left the room.
func left(client plugin.Client, room string, connections uint32) []plugin.Action {
	if connections > 0 {
		return nil
	}
	return notice("presence.left", client.User, room)
}

func notice(eventType, user, room string) []plugin.Action {
	if !strings.HasPrefix(room, config.Prefix) {
		return nil
	}
	return []plugin.Action{plugin.Announce(plugin.NewDraft(eventType, plugin.Room(room), user))}
}

func main() {}
