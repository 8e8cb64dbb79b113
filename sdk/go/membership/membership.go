// Package membership is for plugins that track the members of rooms.
package membership

import (
	"signalbox/plugin"
	"signalbox/plugin/internal/abi"
)

// Change is called with a connection, a room, and the number of connections of the user on this node that are members of
// the room after the change.
type Change func(client plugin.Client, room string, connections uint32) []plugin.Action

var joined, left Change

// Register sets the functions to call after a connection has become a member of a room, and after it has left one.
func Register(come, gone Change) { joined, left = come, gone }

//go:wasmexport signalbox:plugin/membership@1.0.0#joined
func exportJoined(connAt, connLen, userAt, userLen, claimsAt, claimsLen, addrAt, addrLen uint32, connectedAt uint64,
	roomAt, roomLen, connections uint32) uint32 {
	defer abi.Guard()
	client := abi.ClientOf(connAt, connLen, userAt, userLen, claimsAt, claimsLen, addrAt, addrLen, connectedAt)
	return abi.OnlyActions(joined(client, abi.Text(roomAt, roomLen), connections))
}

//go:wasmexport signalbox:plugin/membership@1.0.0#left
func exportLeft(connAt, connLen, userAt, userLen, claimsAt, claimsLen, addrAt, addrLen uint32, connectedAt uint64,
	roomAt, roomLen, connections uint32) uint32 {
	defer abi.Guard()
	client := abi.ClientOf(connAt, connLen, userAt, userLen, claimsAt, claimsLen, addrAt, addrLen, connectedAt)
	return abi.OnlyActions(left(client, abi.Text(roomAt, roomLen), connections))
}
