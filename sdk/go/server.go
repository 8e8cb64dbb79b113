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
