package client

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestTheBackoffIsFullJitterUpToItsBound(t *testing.T) {
	draws := []float64{1, 1, 0.5, 0, 1, 1, 1}
	b := backoff{first: 500 * time.Millisecond, longest: 20 * time.Second}
	var waits []float64
	for _, draw := range draws {
		b.random = func() float64 { return draw }
		waits = append(waits, b.next().Seconds())
	}
	equal(t, waits, []float64{0.5, 1, 1, 0, 8, 16, 20})
}

func TestTheEndDecidesWhatFollows(t *testing.T) {
	for _, code := range []int{4500, 4504} {
		equal(t, ending{code: code}.next(), newToken)
	}
	for _, code := range []int{4501, 4502, 4503, 4505, 4506, 4999, 1002, 1003, 1007, 1008, 1009, 1010} {
		equal(t, ending{code: code}.next(), giveUp)
	}
	for _, code := range []int{0, 1000, 1001, 1011, 1012, 3000, 4000, 4008, 4009, 4499} {
		equal(t, ending{code: code}.next(), reconnect)
	}
	equal(t, ending{status: 401}.next(), newToken)
	for _, status := range []int{400, 403, 404, 405, 410, 426} {
		equal(t, ending{status: status}.next(), giveUp)
	}
	for _, status := range []int{200, 302, 408, 429, 500, 502, 503} {
		equal(t, ending{status: status}.next(), reconnect)
	}
}

func TestAClientConnectsOnceAndClosesWith1000(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		w.client.Connect()
		equal(t, p.path, "/ws?userId=ann")
		code := make(chan websocket.StatusCode, 1)
		go func() { code <- p.closedWith() }()
		w.client.Close()
		equal(t, <-code, websocket.StatusNormalClosure)
		w.until("state closed", 1)
		equal(t, w.of("state"), []string{"connecting 0 0s", "connected 0 0s", "closed 0 0s"})
		w.client.Connect()
		w.accepted()
	})
}

func TestOnlyAConnectionThatLastsResetsTheBackoff(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		for i, step := range []struct{ lasts, wait time.Duration }{
			{4900 * time.Millisecond, 500 * time.Millisecond},
			{4900 * time.Millisecond, time.Second},
			{5 * time.Second, 500 * time.Millisecond},
		} {
			w.clock.advance(step.lasts)
			p.drop()
			equal(t, w.until("state disconnected", i+1), "state disconnected 0 "+step.wait.String())
			w.clock.advance(step.wait - time.Millisecond)
			equal(t, w.client.State(), Disconnected)
			w.clock.advance(time.Millisecond)
			p = w.accepted()
		}
	})
}

func TestARefusedUpgradeWaitsAsLongAsTheServerSays(t *testing.T) {
	play(t, Options{NoFallback: true}, func(w *world) {
		w.refusals = []refusal{
			{503, map[string]string{"Retry-After": "7"}, ""},
			{503, map[string]string{"Retry-After": "3600"}, ""},
			{302, map[string]string{"Location": w.server.URL}, ""},
		}
		w.client.Connect()
		equal(t, w.until("state disconnected", 1), "state disconnected 503 7s")
		w.clock.advance(7 * time.Second)
		equal(t, w.until("state disconnected", 2), "state disconnected 503 1m0s")
		w.clock.advance(time.Minute)
		equal(t, w.until("state disconnected", 3), "state disconnected 302 2s")
		equal(t, w.upgrades, 3)
	})
}

func TestARefusalForGoodClosesTheClientWithAnError(t *testing.T) {
	play(t, Options{}, func(w *world) {
		refused := make(chan *Error, 2)
		w.client.OnError(func(err *Error) { refused <- err })
		w.refusals = []refusal{{403, nil, `{"error":{"code":"blocked","message":"blocked for now"}}`}}
		w.client.Connect()
		w.until("state closed 403", 1)
		equal(t, *<-refused, Error{Code: CodeRefused, Message: "blocked for now", Status: 403})
		w.client.Connect()
		p := w.accepted()
		_ = p.conn.Close(4501, "kicked")
		w.until("state closed 4501", 1)
		equal(t, *<-refused, Error{Code: CodeRefused, Message: "kicked", CloseCode: 4501})
	})
}

func TestAServerWithoutTheProtocolClosesTheClient(t *testing.T) {
	play(t, Options{}, func(w *world) {
		w.plain = true
		w.client.Connect()
		p := w.acceptSilently()
		equal(t, p.closedWith(), websocket.StatusNormalClosure)
		w.until("state closed", 1)
		equal(t, w.of("error"), []string{CodeUnsupportedProtocol})
	})
}

func TestAnAttemptWithoutAWelcomeFailsAfterItsTime(t *testing.T) {
	play(t, Options{NoFallback: true}, func(w *world) {
		w.client.Connect()
		w.acceptSilently()
		w.clock.advance(10 * time.Second)
		w.until("state disconnected", 1)
		w.clock.advance(time.Second)
		w.acceptSilently()
	})
}

func TestAChangeOfTheNetworkEndsTheWaitAtMostOnceInFiveSeconds(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		p.drop()
		w.until("state disconnected", 1)
		w.client.Wake()
		p = w.accepted()
		p.drop()
		w.until("state disconnected", 2)
		w.client.Wake()
		equal(t, w.client.State(), Disconnected)
		w.clock.advance(time.Second)
		w.accepted()
	})
}

func TestASilentConnectionIsAskedAndThenReplaced(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected(frame{"heartbeatIntervalMs": 3000})
		w.clock.advance(2 * time.Second)
		p.message(1, "", 0)
		w.until("message 1", 1)
		w.clock.advance(2 * time.Second)
		w.clock.advance(time.Second)
		equal(t, p.receive()["type"], any("heartbeat"))
		w.clock.advance(10 * time.Second)
		w.until("state disconnected", 1)
		w.reconnected()
	})
}

func TestSilenceCountsAnewAfterAnAnswer(t *testing.T) {
	play(t, Options{HeartbeatInterval: time.Second, HeartbeatTimeout: time.Minute}, func(w *world) {
		p := w.connected()
		for count := range 5 {
			w.clock.advance(time.Second)
			equal(t, p.receive()["type"], any("heartbeat"))
			p.message(count, "", 0)
			w.until("message", count+1)
		}
	})
}

func TestASocketIsClosedAfterEachLoss(t *testing.T) {
	files := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("the files of a process can be counted on Linux only")
		}
		return len(entries)
	}
	play(t, Options{}, func(w *world) {
		w.connected().drop()
		before := files()
		for range 20 {
			w.reconnected().drop()
		}
		w.eventually("sockets are closed", func() bool { return files() <= before+2 })
	})
}

func TestAPauseLeadsToAQuestionAtOnce(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		w.clock.mu.Lock()
		w.clock.now = w.clock.now.Add(time.Hour)
		w.clock.mu.Unlock()
		w.clock.advance(0)
		equal(t, p.receive()["type"], any("heartbeat"))
		w.clock.advance(5 * time.Second)
		w.until("state disconnected", 1)
	})
}

// issuer is a token callback that counts its calls. An answer of nil fails.
type issuer struct {
	answers []any
	calls   atomic.Int32
	running atomic.Int32
}

func (i *issuer) get(context.Context) (string, error) {
	i.calls.Add(1)
	if i.running.Add(1) > 1 {
		panic("the callback runs twice at the same time")
	}
	defer i.running.Add(-1)
	answer := i.answers[0]
	if len(i.answers) > 1 {
		i.answers = i.answers[1:]
	}
	if err, failed := answer.(error); failed {
		return "", err
	}
	return answer.(string), nil
}

func TestATokenIsKeptUntilTheServerRefusesIt(t *testing.T) {
	tokens := &issuer{answers: []any{"one", "two"}}
	play(t, Options{GetToken: tokens.get}, func(w *world) {
		p := w.connected()
		equal(t, p.header.Get("Authorization")+p.path, "Bearer one/ws")
		p.drop()
		p = w.reconnected()
		equal(t, p.header.Get("Authorization"), "Bearer one")
		_ = p.conn.Close(4500, "expired")
		p = w.reconnected()
		equal(t, p.header.Get("Authorization"), "Bearer two")
		equal(t, tokens.calls.Load(), 2)
	})
}

func TestATokenThatIsRefusedThreeTimesInARowClosesTheClient(t *testing.T) {
	tokens := &issuer{answers: []any{"bad"}}
	play(t, Options{GetToken: tokens.get, NoFallback: true}, func(w *world) {
		w.refusals = []refusal{{status: 401}, {status: 503}, {status: 401}, {status: 401}}
		w.client.Connect()
		for count := range 3 {
			w.passBackoff(count + 1)
		}
		w.until("state closed 401", 1)
		equal(t, w.of("error"), []string{CodeUnauthorized})
		equal(t, tokens.calls.Load(), 3)
	})
}

func TestACallbackThatFailsIsCalledAgainAndOneThatDeniesIsNot(t *testing.T) {
	tokens := &issuer{answers: []any{errors.New("down"), ErrTokenDenied}}
	play(t, Options{GetToken: tokens.get}, func(w *world) {
		w.client.Connect()
		w.until("state disconnected", 1)
		w.clock.advance(500 * time.Millisecond)
		w.until("state closed", 1)
		equal(t, w.of("error"), []string{CodeTokenFailed, CodeUnauthorized})
		equal(t, w.upgrades, 0)
	})
}

func TestACallbackHasThirtySecondsAndNeverRunsTwice(t *testing.T) {
	release := make(chan struct{})
	var calls atomic.Int32
	hang := func(context.Context) (string, error) {
		calls.Add(1)
		<-release
		return "late", nil
	}
	play(t, Options{GetToken: hang}, func(w *world) {
		w.client.Connect()
		w.wait(30 * time.Second)
		w.until("state disconnected", 1)
		w.clock.advance(500 * time.Millisecond)
		w.wait(30 * time.Second)
		w.until("state disconnected", 2)
		equal(t, calls.Load(), 1)
		close(release)
		w.reconnected()
		equal(t, calls.Load(), 1)
	})
}

func TestATokenThatExpiresIsReplacedOnTheConnection(t *testing.T) {
	tokens := &issuer{answers: []any{"one", errors.New("down"), "two"}}
	play(t, Options{GetToken: tokens.get}, func(w *world) {
		p := w.connected()
		p.send("token_expiring", frame{"expiresInMs": 30000})
		w.until("error token_failed", 1)
		w.wait(500 * time.Millisecond)
		request := p.receive()
		equal(t, request["payload"], any("two"))
		p.refuse(request, "unavailable", true)
		w.wait(time.Second)
		p.ack(p.receive())
		p.drop()
		p = w.reconnected()
		equal(t, p.header.Get("Authorization"), "Bearer two")
		equal(t, tokens.calls.Load(), 3)
	})
}

func TestATokenThatLivesShortlyIsReplacedAfterHalfOfItsTime(t *testing.T) {
	tokens := &issuer{answers: []any{"one"}}
	play(t, Options{GetToken: tokens.get}, func(w *world) {
		p := w.connected()
		p.send("token_expiring", frame{"expiresInMs": 14000})
		request := p.receive()
		// The server announces the end of the new token before its answer, and once more later.
		p.send("token_expiring", frame{"expiresInMs": 14000})
		p.ack(request)
		w.wait(7 * time.Second)
		p.ack(p.receive())
		p.send("token_expiring", frame{"expiresInMs": 100})
		w.wait(time.Second)
		p.ack(p.receive())
	})
}
