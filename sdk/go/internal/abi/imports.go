package abi

import (
	"strings"
	"unsafe"
)

// Functions of the server. A function that returns more than a number writes its result to the area that it gets.

//go:wasmimport signalbox:plugin/log@1.0.0 write
func logWrite(level, at, length uint32)

//go:wasmimport signalbox:plugin/context@1.0.0 current-client
func contextCurrentClient(area uint32)

//go:wasmimport signalbox:plugin/context@1.0.0 node
func contextNode(area uint32)

//go:wasmimport signalbox:plugin/context@1.0.0 now
func contextNow() uint64

//go:wasmimport signalbox:plugin/context@1.0.0 random
func contextRandom() uint32

//go:wasmimport signalbox:plugin/store@1.0.0 get
func storeGet(key, keyLen, area uint32)

//go:wasmimport signalbox:plugin/store@1.0.0 set
func storeSet(key, keyLen, value, valueLen, hasTTL, ttl, area uint32)

//go:wasmimport signalbox:plugin/store@1.0.0 remove
func storeRemove(key, keyLen, area uint32)

//go:wasmimport signalbox:plugin/store@1.0.0 increment
func storeIncrement(key, keyLen uint32, by int32, hasTTL, ttl, area uint32)

//go:wasmimport signalbox:plugin/store@1.0.0 compare-and-swap
func storeCompareAndSwap(key, keyLen, hasExpected, expected, expectedLen, value, valueLen, hasTTL, ttl, area uint32)

//go:wasmimport signalbox:plugin/room-state@1.0.0 count
func roomCount(room, roomLen, area uint32)

//go:wasmimport signalbox:plugin/room-state@1.0.0 members
func roomMembers(room, roomLen, area uint32)

//go:wasmimport signalbox:plugin/room-state@1.0.0 history
func roomHistory(room, roomLen, hasBefore uint32, before uint64, limit, area uint32)

//go:wasmimport signalbox:plugin/metrics@1.0.0 count
func metricsCount(name, nameLen, by uint32)

//go:wasmimport signalbox:plugin/metrics@1.0.0 observe
func metricsObserve(name, nameLen uint32, value float64)

//go:wasmimport wasi_snapshot_preview1 proc_exit
func exit(code uint32)

// Log writes a line to the server's log.
func Log(level uint32, line string) {
	line = strings.ToValidUTF8(line, "\uFFFD")
	logWrite(level, pointer(line), length(line))
	keepAlive(line)
}

// CurrentClient returns the connection that the call is about, if any.
func CurrentClient() (Client, bool) {
	area := place(48)
	contextCurrentClient(area.Address())
	if area.byteAt(0) == 0 {
		return Client{}, false
	}
	return Client{
		Connection: area.textAt(8), User: area.textAt(16), Claims: area.textAt(24), Address: area.textAt(32),
		ConnectedAt: area.longAt(40),
	}, true
}

// Node returns the node that runs this instance.
func Node() string {
	area := place(8)
	contextNode(area.Address())
	return area.textAt(0)
}

// Now returns the time in milliseconds since 1970.
func Now() uint64 { return contextNow() }

// Random returns a uniform, unpredictable number.
func Random() uint32 { return contextRandom() }

// Code is an error of the store or of room-state, in the order of the WIT; -1 means none.
type Code int

// Get reads a value, if the key exists.
func Get(key string) ([]byte, bool, Code) {
	area := place(16)
	storeGet(pointer(key), length(key), area.Address())
	keepAlive(key)
	if code := area.code(4); code >= 0 || area.byteAt(4) == 0 {
		return nil, false, code
	}
	return area.listAt(8), true, -1
}

// Set writes a value, which expires after ttl seconds; 0 means never.
func Set(key string, value []byte, ttl uint32) Code {
	area := place(8)
	storeSet(pointer(key), length(key), pointerTo(value), length(value), has(ttl), ttl, area.Address())
	keepAlive(key, value)
	return area.code(1)
}

// Remove deletes a value.
func Remove(key string) Code {
	area := place(8)
	storeRemove(pointer(key), length(key), area.Address())
	keepAlive(key)
	return area.code(1)
}

// Increment adds to a value and returns the sum.
func Increment(key string, by int32, ttl uint32) (int64, Code) {
	area := place(16)
	storeIncrement(pointer(key), length(key), by, has(ttl), ttl, area.Address())
	keepAlive(key)
	if code := area.code(8); code >= 0 {
		return 0, code
	}
	return int64(area.longAt(8)), -1
}

// CompareAndSwap sets the value if it is the expected one; nil means that the key must not exist.
func CompareAndSwap(key string, expected, value []byte, ttl uint32) (bool, Code) {
	area := place(8)
	var hasExpected uint32
	if expected != nil {
		hasExpected = 1
	}
	storeCompareAndSwap(pointer(key), length(key), hasExpected, pointerTo(expected), length(expected), pointerTo(value),
		length(value), has(ttl), ttl, area.Address())
	keepAlive(key, expected, value)
	if code := area.code(1); code >= 0 {
		return false, code
	}
	return area.byteAt(1) == 1, -1
}

// RoomCount returns the number of connections in a room.
func RoomCount(room string) (uint32, Code) {
	area := place(8)
	roomCount(pointer(room), length(room), area.Address())
	keepAlive(room)
	if code := area.code(4); code >= 0 {
		return 0, code
	}
	return area.wordAt(4), -1
}

// RoomMembers returns the users in a room.
func RoomMembers(room string) ([]Member, Code) {
	area := place(16)
	roomMembers(pointer(room), length(room), area.Address())
	keepAlive(room)
	if code := area.code(4); code >= 0 {
		return nil, code
	}
	list, count := area.recordsAt(4, sizeOfMember)
	members := make([]Member, count)
	for i := range members {
		at := sizeOfMember * i
		members[i] = Member{User: list.textAt(at), Connections: list.wordAt(at + 8)}
		if list.byteAt(at+12) == 1 {
			members[i].Info = list.textAt(at + 16)
		}
	}
	return members, -1
}

// RoomHistory returns the last messages of a room, or those before an offset other than 0.
func RoomHistory(room string, before uint64, limit uint32) ([]KeptMessage, Code) {
	area := place(16)
	roomHistory(pointer(room), length(room), uint32(min(before, 1)), before, limit, area.Address())
	keepAlive(room)
	if code := area.code(4); code >= 0 {
		return nil, code
	}
	list, count := area.recordsAt(4, sizeOfKeptMessage)
	messages := make([]KeptMessage, count)
	for i := range messages {
		at := sizeOfKeptMessage * i
		messages[i] = KeptMessage{
			Offset: list.longAt(at), Type: list.textAt(at + 8), Sender: list.textAt(at + 16),
			Payload: list.textAt(at + 24), Timestamp: list.longAt(at + 32),
		}
	}
	return messages, -1
}

// Count adds to a count.
func Count(name string, by uint32) {
	metricsCount(pointer(name), length(name), by)
	keepAlive(name)
}

// Observe adds a value to a distribution.
func Observe(name string, value float64) {
	metricsObserve(pointer(name), length(name), value)
	keepAlive(name)
}

// Sizes of records in bytes, including padding.
const (
	sizeOfMember      = 24
	sizeOfKeptMessage = 40
)

// recordsAt returns the records of a list that the server passed, and their number.
func (a Area) recordsAt(at, size int) (Area, int) {
	count := int(a.wordAt(at + 4))
	if count == 0 {
		return Area{}, 0
	}
	list := take(a.wordAt(at), uint32(size*count))
	// The sizes are multiples of 8, and realloc allocates words.
	return Area{unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(list))), len(list)/8)}, count
}

func place(size int) Area { return Area{make([]uint64, (size+7)/8)} }

func (a Area) code(at int) Code {
	if a.byteAt(0) == 0 {
		return -1
	}
	return Code(a.byteAt(at))
}

func has(ttl uint32) uint32 { return min(ttl, 1) }
