package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestEverythingWorksOverEventsAndPosts(t *testing.T) {
	play(t, Options{}, func(w *world) {
		changes := make(chan StateChange, 10)
		w.client.OnState(func(c StateChange) { changes <- c })
		p := w.streaming()
		equal(t, p.path+" "+p.header.Get("Accept")+" "+p.header.Get("Accept-Encoding"), "/sse?userId=ann text/event-stream identity")
		for change := range changes {
			if change.State == Connected {
				equal(t, change.Transport, SSE)
				break
			}
		}
		joined := w.join("r", JoinOptions{})
		p.answerJoin(frame{"epoch": "e", "offset": 3})
		equal(t, <-joined, nil)
		<-p.stream.posts
		p.message("hi", "r", 4)
		w.until(`message "hi" r 4`, 1)
		call := w.start(Outgoing{Room: "r", Payload: frame{"a": "ü"}})
		sent := p.receive()
		equal(t, fmt.Sprint(sent["payload"]), "map[a:ü]")
		p.ack(sent)
		equal(t, (<-call).answer.Status, "handled")
		post := <-p.stream.posts
		equal(t, post.URL.Path+" "+post.Header.Get("Authorization")+" "+post.Header.Get("Content-Type"), "/sse/c Bearer k3y application/json")
	})
}

func TestATokenTravelsInTheHeader(t *testing.T) {
	play(t, Options{Token: "t"}, func(w *world) {
		p := w.streaming()
		equal(t, p.header.Get("Authorization")+p.path, "Bearer t/sse")
	})
}

func TestRoomsAndTheUserRecoverAfterALostStream(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.streaming(frame{"user": frame{"epoch": "u", "offset": 7}})
		joined := w.join("r", JoinOptions{})
		p.answerJoin(frame{"epoch": "e", "offset": 3})
		equal(t, <-joined, nil)
		p.drop()
		p = w.streamedAgain(frame{"user": frame{"epoch": "u", "offset": 7, "recovered": true}})
		equal(t, p.path, "/sse?since=u%3A7&userId=ann")
		join := p.answerJoin(frame{"epoch": "e", "offset": 3, "recovered": true})
		equal(t, fmt.Sprint(join["payload"]), "map[since:map[epoch:e offset:3]]")
	})
}

func TestACloseEventIsACloseCode(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.streaming()
		p.message("last", "", 0)
		p.stream.end(4000, "going down")
		w.until("message \"last\"", 1)
		w.until("state disconnected 4000", 1)
		p = w.streamedAgain()
		p.stream.end(4501, "kicked")
		w.until("state closed 4501", 1)
		equal(t, w.of("error"), []string{CodeRefused})
	})
}

func TestABodyThatEndsWithoutACloseEventIsALostConnection(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.streaming()
		close(p.stream.finished)
		w.until("state disconnected 0", 1)
		w.streamedAgain()
	})
}

func TestCommentsAreSignsOfLifeAndUnknownEventsAreIgnored(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.streaming(frame{"heartbeatIntervalMs": 3000})
		w.clock.advance(2 * time.Second)
		p.stream.send(": \n\nevent: new\ndata: 1\n\n")
		w.eventually("the comment counts", func() bool {
			w.client.mu.Lock()
			defer w.client.mu.Unlock()
			return w.client.link.connection.heartbeat.lastHeard.Equal(w.clock.Now())
		})
		w.clock.advance(2 * time.Second)
		w.clock.advance(time.Second)
		equal(t, p.receive()["type"], any("heartbeat"))
		w.clock.advance(10 * time.Second)
		w.until("state disconnected", 2)
		equal(t, len(w.of("error")), 0)
		w.streamedAgain()
	})
}

func TestFramesAreSentOneAtATimeInTheirOrder(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.streaming()
		for number := range 20 {
			w.start(Outgoing{Payload: number})
		}
		for number := range 20 {
			equal(t, p.receive()["payload"], any(float64(number)))
		}
	})
}

func TestAFrameForWhichThereIsNoRoomWaitsAndIsRepeated(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.streaming()
		p.stream.answers <- refusal{429, map[string]string{"Retry-After": "3"}, ""}
		p.stream.answers <- refusal{status: 429}
		w.start(Outgoing{Payload: 0})
		w.start(Outgoing{Payload: 1})
		equal(t, p.receive()["payload"], any(0.0))
		w.wait(3 * time.Second)
		equal(t, p.receive()["payload"], any(0.0))
		w.wait(time.Second)
		equal(t, p.receive()["payload"], any(0.0))
		equal(t, p.receive()["payload"], any(1.0))
	})
}

func TestAFrameThatMayHaveArrivedIsRepeatedOnlyWithOnce(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.streaming()
		p.stream.answers <- refusal{503, map[string]string{"Retry-After": "2"}, ""}
		p.stream.answers <- refusal{status: 503}
		plain := w.start(Outgoing{Payload: 1})
		once := w.start(Outgoing{Payload: 2, Once: true})
		w.start(Outgoing{Payload: 3})
		equal(t, p.receive()["payload"], any(1.0))
		equal(t, w.codeOf(plain), CodeConnectionLost)
		w.eventually("the next frame waits", func() bool { return len(w.clock.pending()) > 0 })
		equal(t, len(p.stream.frames), 0)
		w.wait(2 * time.Second)
		first := p.receive()
		equal(t, p.receive()["payload"], any(3.0))
		w.wait(500 * time.Millisecond)
		again := p.receive()
		equal(t, fmt.Sprint(again), fmt.Sprint(first))
		p.ack(again)
		equal(t, (<-once).answer.Status, "handled")
	})
}

func TestAFrameThatIsTooLargeForTheServerFailsAlone(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.streaming()
		p.stream.answers <- refusal{status: 413}
		equal(t, w.codeOf(w.start(Outgoing{Payload: 1})), CodeTooLarge)
		p.receive()
		call := w.start(Outgoing{Payload: 2})
		p.ack(p.receive())
		equal(t, (<-call).answer.Status, "handled")
	})
}

func TestAnyOtherAnswerToAPostIsALostConnection(t *testing.T) {
	for _, status := range []int{200, 302, 400, 401, 404, 408, 500, 502} {
		play(t, Options{}, func(w *world) {
			p := w.streaming()
			p.stream.answers <- refusal{status, map[string]string{"Location": "/elsewhere"}, ""}
			plain := w.start(Outgoing{Payload: 1})
			once := w.start(Outgoing{Payload: 2, Once: true})
			equal(t, w.codeOf(plain), CodeConnectionLost)
			p.isGone(t)
			p = w.streamedAgain()
			p.ack(p.receive())
			equal(t, (<-once).answer.Status, "handled")
		})
	}
}

func TestAPostWithoutAnAnswerIsALostConnection(t *testing.T) {
	play(t, Options{ConnectTimeout: 5 * time.Second}, func(w *world) {
		p := w.streaming()
		p.stream.answers <- refusal{}
		plain := w.start(Outgoing{Payload: 1})
		once := w.start(Outgoing{Payload: 2, Once: true})
		p.receive()
		w.wait(5 * time.Second)
		equal(t, w.codeOf(plain), CodeConnectionLost)
		p.isGone(t)
		p = w.streamedAgain()
		p.ack(p.receive())
		equal(t, (<-once).answer.Status, "handled")
	})
}

func TestTheWaitForAnAnswerBeginsWithThePost(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.streaming()
		p.stream.answers <- refusal{429, map[string]string{"Retry-After": "8"}, ""}
		early := w.start(Outgoing{Payload: 1})
		late := w.start(Outgoing{Payload: 2})
		p.receive()
		w.wait(8 * time.Second)
		equal(t, p.receive()["payload"], any(1.0))
		equal(t, p.receive()["payload"], any(2.0))
		w.clock.advance(2 * time.Second)
		equal(t, w.codeOf(early), CodeTimeout)
		w.clock.advance(7900 * time.Millisecond)
		equal(t, len(late), 0)
		w.clock.advance(100 * time.Millisecond)
		equal(t, w.codeOf(late), CodeTimeout)
	})
}

func TestOnlySoManyFramesWaitForTheirTurn(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.streaming()
		p.stream.answers <- refusal{}
		for range outboxMax {
			w.start(Outgoing{})
		}
		equal(t, w.codeOf(w.start(Outgoing{})), CodeQueueFull)
		p.receive()
	})
}

func TestAClosedClientEndsItsRequests(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.streaming()
		p.stream.answers <- refusal{}
		call := w.start(Outgoing{})
		p.receive()
		w.client.Close()
		equal(t, w.codeOf(call), CodeClosed)
		p.isGone(t)
		<-(<-p.stream.posts).Context().Done()
	})
}

func TestAWelcomeWithoutAKeyIsAFailedAttempt(t *testing.T) {
	play(t, Options{}, func(w *world) {
		w.blocked = true
		w.client.Connect()
		w.passBackoff(1)
		p := w.acceptSilently()
		p.stream.begin()
		p.send("welcome", frame{"connectionId": "c"})
		w.passBackoff(2)
		w.accepted()
	})
}

func TestTheApplicationsOwnClientMakesTheRequests(t *testing.T) {
	var requests []string
	own := &http.Client{Timeout: time.Hour, Transport: roundTripper(func(request *http.Request) (*http.Response, error) {
		requests = append(requests, request.Method+" "+request.URL.Path)
		return nil, errors.New("no network")
	})}
	play(t, Options{HTTPClient: own}, func(w *world) {
		w.client.Connect()
		w.passBackoff(1)
		w.until("state disconnected", 2)
		equal(t, requests, []string{"GET /ws", "GET /sse"})
		events, _ := streamClient(w.client.options)
		equal(t, events.Timeout, 0)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) {
	return r(request)
}

func TestEventsAreReadFromPiecesOfAnySize(t *testing.T) {
	const text = "\ufeff: hello\n\nid: e:1\ndata: {\"a\":1}\n\ndata:one\ndata: two\ndata\n\nevent: close\r\ndata: ü\r\n\r\n" +
		"event: nothing\n\nretry: 5\rdata:  spaced\r\rdata: unfinished"
	for _, size := range []int{1, 2, 3, 7, len(text)} {
		p := eventParser{max: 1000}
		var found []string
		for rest := text; rest != ""; rest = rest[min(size, len(rest)):] {
			events, err := p.feed([]byte(rest[:min(size, len(rest))]))
			equal(t, err, nil)
			for _, event := range events {
				found = append(found, event.name+"="+string(event.data))
			}
		}
		equal(t, found, []string{`={"a":1}`, "=one\ntwo\n", "close=ü", "= spaced"})
	}
}

func TestAnEventHasAGreatestSize(t *testing.T) {
	p := eventParser{max: 20}
	events, err := p.feed([]byte("data: 12345678901234\n\n"))
	equal(t, err, nil)
	equal(t, len(events), 1)
	_, err = p.feed([]byte("data: 1234567\ndata: 123456789012345"))
	equal(t, err != nil, true)
}

func TestTheURLsAreThoseOfTheWebSocket(t *testing.T) {
	for address, want := range map[string]string{
		"ws://host/ws?a=b":        "http://host/sse?a=b http://host/sse",
		"wss://host:8443/x/y/ws":  "https://host:8443/x/y/sse https://host:8443/x/y/sse",
		"ws://host":               "http://host/sse http://host/sse",
		"ws://[::1]:80/a%20b/ws?": "http://[::1]:80/a%20b/sse? http://[::1]:80/a%20b/sse",
	} {
		events, posts, err := streamURLs(address)
		equal(t, err, nil)
		equal(t, strings.TrimSuffix(events, "?")+" "+strings.TrimSuffix(posts, "?"), strings.ReplaceAll(want, "? ", " "))
	}
}

// noticed tells when the body of an answer is read.
type noticed struct {
	io.ReadCloser
	read func()
}

func (n noticed) Read(piece []byte) (int, error) {
	n.read()
	return n.ReadCloser.Read(piece)
}
