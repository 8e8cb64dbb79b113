package client

// Transport is how frames travel.
type Transport string

// The transports of a connection.
const (
	WebSocket Transport = "websocket"
	// SSE stands for server-sent events, the fallback if WebSockets do not get through.
	SSE Transport = "sse"
)

// wire is an open connection, with any transport.
type wire interface {
	transport() Transport
	// welcomed says that `welcome` has arrived. It returns the end of the connection if `welcome` lacks something.
	welcomed(payload welcomePayload) *ending
	// listen makes it call heard, with the lock held, when bytes arrive that are no frame, and tell calls about the frames
	// that are sent from now on. The caller holds the lock.
	listen(heard func(), calls *calls)
	// send writes a frame after those before it. The caller holds the lock.
	send(call *pendingCall)
	// waitingBytes is the number of bytes that wait to be written. The caller holds the lock.
	waitingBytes() int
	// receive returns the next frame, or the end of the connection.
	receive() ([]byte, *ending)
	// done is closed when the connection has ended.
	done() <-chan struct{}
	// abort ends the connection at once. It does not wait: the goroutine that receives must call release.
	abort()
	// release frees what a connection holds that has ended. The caller does not hold the lock.
	release()
	// close ends the connection as the protocol says, while another goroutine receives.
	close()
}
