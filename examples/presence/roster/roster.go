// Package roster is who is there, as a value of the store. Whoever is listed has shown a sign of life on some node not long ago:
// a node that dies tells nobody about its connections, so what it wrote must end by itself.
package roster

import (
	"encoding/json"
	"maps"
	"slices"
)

// bytesMax keeps the value below what the store takes, 64 KiB.
const bytesMax = 60_000

// Roster has the marks of each user, by node.
type Roster map[string]map[string]Mark

// Mark is what a node knows of a user.
type Mark struct {
	// Open connections.
	Open int `json:"open"`
	// Until is when the mark ends unless it is renewed, in milliseconds since 1970.
	Until uint64 `json:"until"`
}

// Parse reads the value of the store; nil is an empty roster.
func Parse(value []byte) (Roster, error) {
	roster := Roster{}
	if value == nil {
		return roster, nil
	}
	err := json.Unmarshal(value, &roster)
	return roster, err
}

// Value is the roster for the store.
func (r Roster) Value() ([]byte, error) { return json.Marshal(r) }

// Names are the users who are there, in order.
func (r Roster) Names(now uint64) []string {
	names := []string{}
	for _, user := range slices.Sorted(maps.Keys(r)) {
		if r.There(user, now) {
			names = append(names, user)
		}
	}
	return names
}

// There is whether a mark of the user holds.
func (r Roster) There(user string, now uint64) bool {
	for _, mark := range r[user] {
		if mark.Until > now {
			return true
		}
	}
	return false
}

// Came notes another connection of a user. Where namesMax are listed, or the value would be too large, it stays out.
func (r Roster) Came(user, node string, until uint64, namesMax int) {
	mark := r[user][node]
	r.put(user, node, Mark{Open: mark.Open + 1, Until: until}, namesMax)
}

// Seen renews the mark of a user who has shown a sign of life. One whose mark had ended is back with one connection.
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

// Went notes that a connection is gone.
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

// Expire takes out marks that have ended, of so many users at most, and returns those of whom none is left.
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
