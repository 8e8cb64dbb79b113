// Package roster is the list of users who are online, as a value in the store. Every entry expires unless it is
// renewed, because a killed node reports nothing about its connections.
package roster

import (
	"encoding/json"
	"maps"
	"slices"
)

// bytesMax is the largest value of the roster. It is below the limit of the store, 64 KiB.
const bytesMax = 60_000

// Roster has the entries of each user by node.
type Roster map[string]map[string]Mark

// Mark is the entry of a node for a user.
type Mark struct {
	// Open is the number of open connections.
	Open int `json:"open"`
	// Until is when the entry expires unless it is renewed, in milliseconds since 1970.
	Until uint64 `json:"until"`
}

// Parse reads a value from the store; nil is an empty roster.
func Parse(value []byte) (Roster, error) {
	roster := Roster{}
	if value == nil {
		return roster, nil
	}
	err := json.Unmarshal(value, &roster)
	return roster, err
}

// Value returns the roster as a value for the store.
func (r Roster) Value() ([]byte, error) { return json.Marshal(r) }

// Names returns the users who are online, sorted.
func (r Roster) Names(now uint64) []string {
	names := []string{}
	for _, user := range slices.Sorted(maps.Keys(r)) {
		if r.There(user, now) {
			names = append(names, user)
		}
	}
	return names
}

// There returns whether the user is online: at least one entry has not expired.
func (r Roster) There(user string, now uint64) bool {
	for _, mark := range r[user] {
		if mark.Until > now {
			return true
		}
	}
	return false
}

// Came records a new connection of a user. A user who is not listed yet is left out if namesMax users are listed. The
// entry is also left out if the value would be too large.
func (r Roster) Came(user, node string, until uint64, namesMax int) {
	mark := r[user][node]
	r.put(user, node, Mark{Open: mark.Open + 1, Until: until}, namesMax)
}

// Seen renews the entry of a user. A user whose entry has expired is listed again with one connection.
func (r Roster) Seen(user, node string, until uint64, namesMax int) {
	mark := r[user][node]
	r.put(user, node, Mark{Open: max(mark.Open, 1), Until: until}, namesMax)
}

func (r Roster) put(user, node string, mark Mark, namesMax int) {
	marks, listed := r[user]
	if !listed {
		if len(r) >= namesMax {
			return
		}
		marks = map[string]Mark{}
	}
	before, marked := marks[node]
	marks[node] = mark
	r[user] = marks
	if value, err := r.Value(); err == nil && len(value) <= bytesMax {
		return
	}
	if marked {
		marks[node] = before
	} else if delete(marks, node); len(marks) == 0 {
		delete(r, user)
	}
}

// Went records that a connection has closed.
func (r Roster) Went(user, node string) {
	mark, marked := r[user][node]
	if !marked {
		return
	}
	if mark.Open--; mark.Open > 0 {
		r[user][node] = mark
		return
	}
	if delete(r[user], node); len(r[user]) == 0 {
		delete(r, user)
	}
}

// Expire removes expired entries until usersMax users have none left, and returns those users.
func (r Roster) Expire(now uint64, usersMax int) []string {
	var gone []string
	for _, user := range slices.Sorted(maps.Keys(r)) {
		if len(gone) >= usersMax {
			break
		}
		maps.DeleteFunc(r[user], func(_ string, mark Mark) bool { return mark.Until <= now })
		if len(r[user]) == 0 {
			delete(r, user)
			gone = append(gone, user)
		}
	}
	return gone
}
