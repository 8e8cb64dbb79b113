package plugin

import (
	"fmt"

	"signalbox/plugin/internal/abi"
)

// Level is the level of a log line.
type Level uint32

// The levels.
const (
	Debug Level = iota
	Info
	Warn
	Error
)

// Log writes a line to the server's log.
func Log(level Level, format string, args ...any) {
	abi.Log(uint32(level), fmt.Sprintf(format, args...))
}

// CurrentClient returns the connection that the call is about; false if there is none.
func CurrentClient() (Client, bool) { return abi.CurrentClient() }

// Node returns the node that runs this instance.
func Node() string { return abi.Node() }

// Now returns the time in milliseconds since 1970. Go's own clock does not follow real time in a plugin.
func Now() uint64 { return abi.Now() }

// Random returns a uniform, unpredictable number.
func Random() uint32 { return abi.Random() }

// StoreError is the reason why a store operation failed.
type StoreError abi.Code

// The errors of the store.
const (
	TooLarge StoreError = iota
	NotANumber
	TooManyCalls
	Unavailable
)

func (e StoreError) Error() string {
	return "store: " + [...]string{"too large", "not a number", "too many calls", "unavailable"}[e]
}

// Rejection returns the refusal that the client gets if a function returns this error.
func (e StoreError) Rejection() *Rejection {
	return [...]*Rejection{
		{Code: "store_full", Reason: "there is no room to keep this"},
		{Code: "store_value", Reason: "what is kept is not a number"},
		{Code: "store_calls", Reason: "this needs too many calls to the store"},
		{Code: "store_unavailable", Reason: "the store does not answer; try again"},
	}[e]
}

// Get reads a value; false if the key does not exist.
func Get(key string) ([]byte, bool, error) {
	value, found, code := abi.Get(key)
	return value, found, storeError(code)
}

// Set writes a value, which expires after ttlSeconds; 0 means never.
func Set(key string, value []byte, ttlSeconds uint32) error {
	return storeError(abi.Set(key, value, ttlSeconds))
}

// Remove deletes a value. It is not an error if the key does not exist.
func Remove(key string) error { return storeError(abi.Remove(key)) }

// Increment adds by to a value and returns the sum. A new value starts at 0 and expires after ttlSeconds; 0 means
// never. An existing value keeps its expiry.
func Increment(key string, by int32, ttlSeconds uint32) (int64, error) {
	sum, code := abi.Increment(key, by, ttlSeconds)
	return sum, storeError(code)
}

// CompareAndSwap sets the value if it is still expected; nil means that the key must not exist. It returns false if
// another call changed the value first.
func CompareAndSwap(key string, expected, value []byte, ttlSeconds uint32) (bool, error) {
	swapped, code := abi.CompareAndSwap(key, expected, value, ttlSeconds)
	return swapped, storeError(code)
}

// RoomError is the reason why a question about a room has no answer.
type RoomError abi.Code

// The errors of RoomCount, RoomMembers and RoomHistory.
const (
	// RoomSwitchedOff means that the room's rule switches on no presence for RoomMembers, no history for RoomHistory.
	RoomSwitchedOff RoomError = iota
	RoomInvalid
	RoomTooManyCalls
	RoomUnavailable
)

func (e RoomError) Error() string {
	return "room: " + [...]string{"switched off", "invalid", "too many calls", "unavailable"}[e]
}

// Rejection returns the refusal that the client gets if a function returns this error.
func (e RoomError) Rejection() *Rejection {
	return [...]*Rejection{
		{Code: "room_switched_off", Reason: "this room does not keep what this needs"},
		{Code: "room_invalid", Reason: "there is no such room"},
		{Code: "room_calls", Reason: "this needs too many calls to the server"},
		{Code: "room_unavailable", Reason: "the room cannot be read; try again"},
	}[e]
}

// RoomCount returns the number of connections in a room, on all nodes.
func RoomCount(room string) (uint32, error) {
	count, code := abi.RoomCount(room)
	return count, roomError(code)
}

// RoomMembers returns the users in a room, on all nodes, ordered by ID.
func RoomMembers(room string) ([]Member, error) {
	members, code := abi.RoomMembers(room)
	return members, roomError(code)
}

// RoomHistory returns the last messages of a room, at most limit, the oldest first. If before is not 0, they are those
// before this offset.
func RoomHistory(room string, before uint64, limit uint32) ([]KeptMessage, error) {
	messages, code := abi.RoomHistory(room, before, limit)
	return messages, roomError(code)
}

// Count adds by to a count of the plugin.
func Count(name string, by uint32) { abi.Count(name, by) }

// Observe adds a value to a distribution of the plugin.
func Observe(name string, value float64) { abi.Observe(name, value) }

func storeError(code abi.Code) error {
	if code < 0 {
		return nil
	}
	return StoreError(code)
}

func roomError(code abi.Code) error {
	if code < 0 {
		return nil
	}
	return RoomError(code)
}
