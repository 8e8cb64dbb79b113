package client

import (
	"encoding/json"
	"maps"
)

// Member is a user in a room.
type Member struct {
	User string `json:"userId"`
	// Connections is the number of the user's connections in the room when they were last reported.
	Connections int `json:"connections"`
	// Info is the claim `info` of the user's token; nil if there is none.
	Info json.RawMessage `json:"info"`
}

// Presence has the users in a room, as far as they are known. Do not change it.
type Presence struct {
	// Total is the number of users; 0 before the first report.
	Total int
	// Members are the users by their ID; nil if they are not listed.
	Members map[string]Member
}

type presencePayload struct {
	Room    string    `json:"room"`
	Total   int       `json:"total"`
	Members *[]Member `json:"members"`
	Joined  []Member  `json:"joined"`
	Left    []string  `json:"left"`
}

// after returns the users after a `presence` frame.
func (p Presence) after(frame presencePayload) Presence {
	if frame.Members != nil {
		members := make(map[string]Member, len(*frame.Members))
		for _, member := range *frame.Members {
			members[member.User] = member
		}
		return Presence{frame.Total, members}
	}
	if p.Members == nil || frame.Joined == nil && frame.Left == nil {
		return Presence{frame.Total, nil}
	}
	members := maps.Clone(p.Members)
	for _, member := range frame.Joined {
		members[member.User] = member
	}
	for _, user := range frame.Left {
		delete(members, user)
	}
	return Presence{frame.Total, members}
}
