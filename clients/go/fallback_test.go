package client

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func refusedBy(status int, code string) refusal {
	return refusal{status: status, body: `{"error":{"code":"` + code + `","message":"no"}}`}
}

func TestAttemptsChangeTheTransportWhileNeitherWorks(t *testing.T) {
	play(t, Options{}, func(w *world) {
		w.blocked = true
		w.streams = []refusal{{status: 502}, {200, map[string]string{"Content-Type": "text/html"}, "<html>"}, {status: 302}}
		w.client.Connect()
		var waits []string
		for count := range 7 {
			event := w.until("state disconnected", count+1)
			waits = append(waits, event[strings.LastIndex(event, " ")+1:])
			w.passBackoff(count + 1)
		}
		w.accepted()
		equal(t, w.attempts(), strings.Repeat("ws sse ", 4))
		equal(t, waits, []string{"500ms", "1s", "500ms", "4s", "500ms", "16s", "500ms"})
	})
}

func TestWithoutTheFallbackOnlyWebSocketsAreTried(t *testing.T) {
	play(t, Options{NoFallback: true}, func(w *world) {
		w.refusals = []refusal{{status: 502}, {status: 502}, {status: 502}, {status: 403}}
		w.client.Connect()
		for count := range 3 {
			w.passBackoff(count + 1)
		}
		w.until("state closed 403", 1)
		equal(t, w.attempts(), strings.Repeat("ws ", 4))
	})
}

func TestAnAnswerOfTheServerKeepsTheTransport(t *testing.T) {
	draining := refusedBy(503, "draining")
	play(t, Options{}, func(w *world) {
		w.refusals = []refusal{draining, draining}
		w.blocked = true
		w.streams = []refusal{draining, draining}
		w.client.Connect()
		for count := range 5 {
			w.passBackoff(count + 1)
		}
		w.accepted()
		equal(t, w.attempts(), "ws ws ws sse sse sse ")
	})
}

func TestAProxyThatTakesTheUpgradeOutOfTheRequestLeadsToServerSentEvents(t *testing.T) {
	for _, code := range []string{"not_an_upgrade", "websocket_version", "websocket_key"} {
		play(t, Options{}, func(w *world) {
			w.refusals = []refusal{refusedBy(426, code)}
			w.streaming()
		})
	}
}

func TestAStatusThatAProxyMayHaveSentCountsOnlyWithBothTransports(t *testing.T) {
	play(t, Options{}, func(w *world) {
		w.refusals = []refusal{{status: 403}, {status: 403}}
		w.streams = []refusal{{status: 502}, refusedBy(404, "sse_disabled")}
		w.client.Connect()
		for count := range 3 {
			w.passBackoff(count + 1)
		}
		w.until("state closed 404", 1)
		equal(t, w.of("error"), []string{CodeRefused})
		equal(t, w.attempts(), "ws sse ws sse ")
	})
}

func TestARefusalOfTheServerClosesTheClientAtOnce(t *testing.T) {
	play(t, Options{}, func(w *world) {
		w.blocked = true
		w.streams = []refusal{refusedBy(403, "blocked")}
		w.client.Connect()
		w.passBackoff(1)
		w.until("state closed 403", 1)
	})
}

func TestAClientWithAWebSocketKeepsToItForThreeFailures(t *testing.T) {
	blocked := refusal{status: 502}
	play(t, Options{}, func(w *world) {
		w.connected().drop()
		w.refusals = []refusal{blocked, blocked, refusedBy(503, "draining"), blocked, blocked, blocked}
		w.streams = []refusal{blocked}
		for count := range 8 {
			w.passBackoff(count + 1)
		}
		w.accepted()
		equal(t, w.attempts(), strings.Repeat("ws ", 7)+"sse ws ")
	})
}

func TestAttemptsBeginWithTheTransportThatWorkedForTenMinutes(t *testing.T) {
	play(t, Options{HeartbeatInterval: time.Hour}, func(w *world) {
		p := w.streaming()
		w.clock.advance(590 * time.Second)
		p.drop()
		p = w.streamedAgain()
		equal(t, w.attempts(), "ws sse sse ")
		w.clock.advance(10 * time.Minute)
		equal(t, w.client.State(), Connected)
		p.drop()
		w.passBackoff(3)
		w.passBackoff(4)
		w.accepted()
		equal(t, w.attempts(), "ws sse sse ws sse ")
	})
}

func TestAProxyThatHoldsTheEventsBackIsNamed(t *testing.T) {
	reading := make(chan struct{})
	read := sync.OnceFunc(func() { close(reading) })
	inner := &http.Transport{DisableKeepAlives: true}
	own := &http.Client{Transport: roundTripper(func(request *http.Request) (*http.Response, error) {
		response, err := inner.RoundTrip(request)
		if err == nil && response.Header.Get("Content-Type") != "" {
			response.Body = noticed{response.Body, read}
		}
		return response, err
	})}
	play(t, Options{HTTPClient: own}, func(w *world) {
		refused := make(chan *Error, 1)
		w.client.OnError(func(err *Error) { refused <- err })
		w.blocked = true
		w.client.Connect()
		w.passBackoff(1)
		p := w.acceptSilently()
		p.stream.begin()
		<-reading
		w.clock.advance(10 * time.Second)
		p.isGone(t)
		failed := <-refused
		equal(t, failed.Code, CodeBuffered)
		equal(t, failed.Retryable, true)
		equal(t, strings.Contains(failed.Message, "proxy"), true)
		w.passBackoff(2)
		w.until("state disconnected", 3)
		equal(t, w.attempts(), "ws sse ws ")
	})
}
