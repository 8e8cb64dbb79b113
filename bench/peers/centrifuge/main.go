// A message server on the centrifuge library, for `cargo xtask bench --peers`.
//
// A client is the user whom the query names as userId; nothing checks that. Each connection is subscribed on the server
// side to the personal channel of its user, user:ID. To reach a user, a client publishes to that channel, and to reach a
// room it publishes to room:NAME, to which the members subscribe. Nothing is kept: no history, no presence, one process.
//
// Settings are the defaults of the library, except for the pool of write buffers, with which an idle connection owns none.
// Compression is off by default.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/centrifugal/centrifuge"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// run serves until the process receives SIGTERM or SIGINT.
func run() error {
	port := "0"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	node, err := newNode()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return fmt.Errorf("cannot listen on port %s; name a free one, or none: %w", port, err)
	}
	handler := centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{UseWriteBufferPool: true})
	mux := http.NewServeMux()
	mux.Handle("/connection/websocket", identify(handler))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}

	stopping, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Printf("listening on %s\n", listener.Addr())
	select {
	case err := <-failed:
		return fmt.Errorf("the listener failed: %w", err)
	case <-stopping.Done():
	}
	ending, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return errors.Join(node.Shutdown(ending), server.Close())
}

// newNode returns a running node that lets every client publish to users and rooms.
func newNode() (*centrifuge.Node, error) {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(ctx context.Context, _ centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		credentials, ok := centrifuge.GetCredentials(ctx)
		if !ok {
			return centrifuge.ConnectReply{}, centrifuge.DisconnectInvalidToken
		}
		personal := map[string]centrifuge.SubscribeOptions{"user:" + credentials.UserID: {}}
		return centrifuge.ConnectReply{Subscriptions: personal}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(event centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			if !strings.HasPrefix(event.Channel, "room:") {
				answer(centrifuge.SubscribeReply{}, centrifuge.ErrorPermissionDenied)
				return
			}
			answer(centrifuge.SubscribeReply{}, nil)
		})
		client.OnPublish(func(event centrifuge.PublishEvent, answer centrifuge.PublishCallback) {
			if !strings.HasPrefix(event.Channel, "user:") && !strings.HasPrefix(event.Channel, "room:") {
				answer(centrifuge.PublishReply{}, centrifuge.ErrorPermissionDenied)
				return
			}
			answer(centrifuge.PublishReply{}, nil)
		})
	})
	return node, node.Run()
}

// identify takes the user from the query, as servers do in a benchmark.
func identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		user := request.URL.Query().Get("userId")
		if user == "" {
			http.Error(answer, "the query has no userId", http.StatusBadRequest)
			return
		}
		credentials := &centrifuge.Credentials{UserID: user}
		ctx := centrifuge.SetCredentials(request.Context(), credentials)
		next.ServeHTTP(answer, request.WithContext(ctx))
	})
}
