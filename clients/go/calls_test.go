package client

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestACallResolvesWithItsAnswer(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		call := w.start(Outgoing{Payload: frame{"a": "<ü>"}, To: "bob", Once: true})
		sent := p.receive()
		equal(t, fmt.Sprint(sent["payload"], sent["receiverId"], sent["once"]), "map[a:<ü>]bobtrue")
		p.ack(sent, frame{"status": "kept", "duplicate": true, "data": []int{1}})
		got := <-call
		equal(t, fmt.Sprint(got.answer.Status, got.answer.Duplicate, string(got.answer.Data), got.err), "kepttrue[1]<nil>")
	})
}

func TestAnErrorOfTheServerReachesTheCall(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		call := w.start(Outgoing{})
		sent := p.receive()
		p.send("error", frame{"id": sent["id"], "code": "blank", "message": "no text", "plugin": "chat", "retryable": true})
		failed := (<-call).err.(*Error)
		equal(t, *failed, Error{Code: "blank", Message: "no text", Plugin: "chat", Retryable: true})
	})
}

func TestMessagesWaitForTheConnectionAndTheRooms(t *testing.T) {
	play(t, Options{}, func(w *world) {
		joining := w.join("r", JoinOptions{})
		var calls []chan outcome
		for number := range 3 {
			calls = append(calls, w.start(Outgoing{Payload: number}))
		}
		equal(t, w.client.Queued(), 3)
		p := w.connected()
		p.answerJoin(nil)
		equal(t, <-joining, nil)
		for number, call := range calls {
			sent := p.receive()
			equal(t, fmt.Sprint(sent["payload"]), fmt.Sprint(number))
			p.ack(sent)
			equal(t, (<-call).err, nil)
		}
	})
}

func TestMessagesWaitForTheRoomsNoLongerThanTenSeconds(t *testing.T) {
	play(t, Options{AnswerTimeout: time.Hour}, func(w *world) {
		w.join("r", JoinOptions{})
		call := w.start(Outgoing{})
		p := w.connected()
		equal(t, p.receive()["type"], any("join"))
		w.clock.advance(9900 * time.Millisecond)
		equal(t, w.client.Queued(), 1)
		w.clock.advance(100 * time.Millisecond)
		p.ack(p.receive())
		equal(t, (<-call).err, nil)
	})
}

func TestAFullQueueRefusesByNumberAndByBytes(t *testing.T) {
	play(t, Options{QueueMax: 3, QueueBytesMax: 2000}, func(w *world) {
		for range 2 {
			w.start(Outgoing{Payload: strings.Repeat("x", 500)})
		}
		equal(t, w.codeOf(w.start(Outgoing{Payload: strings.Repeat("x", 1600)})), CodeQueueFull)
		w.start(Outgoing{})
		equal(t, w.codeOf(w.start(Outgoing{})), CodeQueueFull)
	})
}

func TestWithoutAQueueMessagesFailWhileThereIsNoConnection(t *testing.T) {
	play(t, Options{FailOffline: true}, func(w *world) {
		equal(t, w.codeOf(w.start(Outgoing{})), CodeOffline)
		w.answersNext(w.connected())
	})
}

func TestACallWithoutAnAnswerIsLostAndOneWithOnceIsSentAgain(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		lost := w.start(Outgoing{Payload: 0})
		first := w.start(Outgoing{Payload: 1, Once: true})
		second := w.start(Outgoing{Payload: 2, Once: true})
		sent := []frame{p.receive(), p.receive(), p.receive()}
		p.drop()
		equal(t, w.codeOf(lost), CodeConnectionLost)
		third := w.start(Outgoing{Payload: 3})
		p = w.reconnected()
		again := []frame{p.receive(), p.receive(), p.receive()}
		equal(t, fmt.Sprint(again[:2]), fmt.Sprint(sent[1:]))
		equal(t, fmt.Sprint(again[2]["payload"]), "3")
		for _, received := range again {
			p.ack(received)
		}
		for _, call := range []chan outcome{first, second, third} {
			equal(t, (<-call).err, nil)
		}
	})
}

func TestOnlyACallWithOnceIsRetriedAndThreeTimes(t *testing.T) {
	play(t, Options{StableAfter: time.Hour}, func(w *world) {
		p := w.connected()
		call := w.start(Outgoing{})
		p.refuse(p.receive(), "unavailable", true)
		equal(t, w.codeOf(call), "unavailable")
		call = w.start(Outgoing{Once: true})
		first := p.receive()
		received := first
		for _, wait := range []time.Duration{500, 1000, 2000} {
			p.refuse(received, "unavailable", true)
			w.wait(wait * time.Millisecond)
			received = p.receive()
			equal(t, fmt.Sprint(received), fmt.Sprint(first))
		}
		p.refuse(received, "unavailable", true)
		equal(t, w.codeOf(call), "unavailable")
	})
}

func TestACallWhoseFirstTryIsInProgressIsRepeatedForFifteenSeconds(t *testing.T) {
	play(t, Options{StableAfter: time.Hour}, func(w *world) {
		p := w.connected()
		call := w.start(Outgoing{Once: true})
		first := p.receive()
		received := first
		for _, wait := range []time.Duration{500, 1000, 2000, 2000, 2000, 2000, 2000, 2000, 1500} {
			p.refuse(received, codeInProgress, true)
			w.wait(wait * time.Millisecond)
			received = p.receive()
			equal(t, fmt.Sprint(received), fmt.Sprint(first))
		}
		p.refuse(received, codeInProgress, true)
		equal(t, w.codeOf(call), codeInProgress)
	})
}

func TestARepetitionAfterInProgressIsNoneOfTheThreeRetries(t *testing.T) {
	play(t, Options{StableAfter: time.Hour}, func(w *world) {
		p := w.connected()
		call := w.start(Outgoing{Once: true})
		for _, wait := range []time.Duration{500, 1000, 2000, 2000} {
			p.refuse(p.receive(), codeInProgress, true)
			w.wait(wait * time.Millisecond)
		}
		for _, wait := range []time.Duration{500, 1000, 2000} {
			p.refuse(p.receive(), "unavailable", true)
			w.wait(wait * time.Millisecond)
		}
		p.refuse(p.receive(), codeInProgress, true)
		w.wait(2 * time.Second)
		p.ack(p.receive())
		equal(t, (<-call).err, nil)
	})
}

func TestACallWaitsTenSecondsAndItsLateAnswerIsIgnored(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		call := w.start(Outgoing{})
		sent := p.receive()
		w.clock.advance(10 * time.Second)
		equal(t, w.codeOf(call), CodeTimeout)
		p.ack(sent)
		p.refuse(sent, "late", false)
		p.message(1, "", 0)
		w.until("message 1", 1)
		equal(t, w.of("error"), nil)
	})
}

func TestAFrameOverTheLimitIsNotSent(t *testing.T) {
	play(t, Options{}, func(w *world) {
		queued := w.start(Outgoing{Payload: strings.Repeat("x", 200)})
		p := w.connected(frame{"limits": frame{"frameBytesMax": 200}})
		equal(t, w.codeOf(queued), CodeTooLarge)
		equal(t, w.codeOf(w.start(Outgoing{Payload: strings.Repeat("ü", 100)})), CodeTooLarge)
		w.answersNext(p)
	})
}

func TestACallThatNobodyWaitsForIsNotSent(t *testing.T) {
	play(t, Options{}, func(w *world) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := w.client.SendMessage(ctx, Outgoing{Type: "note"})
		equal(t, err, context.Canceled)
		equal(t, w.client.Queued(), 0)
		_, err = w.client.SendMessage(ctx, Outgoing{Type: "note", Payload: make(chan int)})
		equal(t, err != nil, true)
	})
}

func TestCloseFailsEverythingThatWaits(t *testing.T) {
	play(t, Options{}, func(w *world) {
		first, queued := w.join("r", JoinOptions{}), w.start(Outgoing{})
		p := w.connected()
		p.ack(p.receive())
		equal(t, <-first, nil)
		joining, sent := w.join("s", JoinOptions{}), w.start(Outgoing{Once: true})
		for range 3 {
			p.receive()
		}
		go p.closedWith()
		w.client.Close()
		equal(t, CodeOf(<-joining), CodeClosed)
		for _, call := range []chan outcome{queued, sent, w.start(Outgoing{})} {
			equal(t, w.codeOf(call), CodeClosed)
		}
		// Only a room that was joined is joined again.
		w.client.Connect()
		p = w.accepted()
		equal(t, p.answerJoin(nil)["room"], any("r"))
		w.answersNext(p)
	})
}

func TestAPageOfAHistoryIsReadBack(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		pages := make(chan Page, 1)
		go func() {
			page, _ := w.client.History(context.Background(), "r", 9, 2)
			pages <- page
		}()
		asked := p.receive()
		equal(t, fmt.Sprint(asked["type"], asked["payload"]), "historymap[before:9 limit:2]")
		messages := []frame{{"type": "note", "offset": 7}, {"type": "note", "offset": 8}}
		p.ack(asked, frame{"history": frame{"hasOlder": true, "messages": messages}})
		page := <-pages
		equal(t, fmt.Sprint(page.Messages[0].Offset, page.Messages[1].Offset, page.HasOlder), "7 8 true")
	})
}

func TestCallbacksComeInOrderAndMayCallAndClose(t *testing.T) {
	play(t, Options{}, func(w *world) {
		w.client.Room("r").On("note", func(m Message) { w.add("room %s", m.Payload) })
		w.client.On("last", func(m Message) {
			_, err := w.client.Send(context.Background(), "reply", m.Payload, "bob")
			w.add("replied %v", err)
			w.client.Close()
		})
		p := w.connected()
		p.message(1, "r", 0)
		p.message(2, "r", 0)
		p.send("last", 3)
		p.ack(p.receive())
		w.until("state closed", 1)
		equal(t, w.of("room"), []string{"1", "2"})
		equal(t, w.of("message"), []string{"1 r 0", "2 r 0", "3  0"}[:len(w.of("message"))])
		equal(t, w.of("replied"), []string{"<nil>"})
	})
}

func TestACallbackThatPanicsIsReportedAndChangesNothingElse(t *testing.T) {
	play(t, Options{}, func(w *world) {
		end := w.client.On("note", func(Message) { panic("a bug") })
		w.client.OnError(func(*Error) { panic("another bug") })
		p := w.connected()
		p.message(1, "", 0)
		w.until("message 1", 1)
		w.until("error callback_failed", 1)
		end()
		p.message(2, "", 0)
		w.until("message 2", 1)
		equal(t, w.of("error"), []string{CodeCallbackFailed})
	})
}

func TestSlowCallbacksSlowTheServerDownAndLoseNothing(t *testing.T) {
	play(t, Options{CallbacksMax: 10}, func(w *world) {
		gate := make(chan struct{})
		w.client.On("note", func(Message) { <-gate })
		p := w.connected()
		for number := range 50 {
			p.message(number, "", 0)
		}
		w.eventually("paused", func() bool {
			w.client.mu.Lock()
			defer w.client.mu.Unlock()
			return w.client.link.connection.paused
		})
		// Silence means nothing while the client does not read.
		w.clock.advance(200 * time.Second)
		equal(t, w.client.State(), Connected)
		close(gate)
		w.until("message 49", 1)
		equal(t, len(w.of("message")), 50)
	})
}

func TestFramesThatAreNotOfTheProtocolAreReported(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		for _, text := range []string{"{", "[1]", `{"type":7}`, `{"type":"ack","payload":1}`} {
			p.sendText(text)
		}
		p.send("error", frame{"code": "rate_limited", "message": "slow down", "retryable": true})
		p.send("brand_new", 1)
		w.until("message 1", 1)
		invalid := CodeInvalidFrame
		equal(t, w.of("error"), []string{invalid, invalid, invalid, invalid, "rate_limited"})
	})
}

func TestNoSequenceOfFailuresLeadsToAttemptsWithoutAWait(t *testing.T) {
	play(t, Options{NoFallback: true}, func(w *world) {
		w.client.Connect()
		for count := 1; count < 20; count++ {
			w.acceptSilently().drop()
			w.until("state disconnected", count)
			w.mu.Lock()
			upgrades := w.upgrades
			w.mu.Unlock()
			equal(t, upgrades, count)
			w.passBackoff(count)
		}
	})
}
