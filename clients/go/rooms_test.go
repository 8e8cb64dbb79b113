package client

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// member joins a room.
func (w *world) member(p *peer, name string, place frame) frame {
	w.t.Helper()
	w.watch(name)
	joining := w.join(name, JoinOptions{})
	join := p.answerJoin(place)
	equal(w.t, <-joining, nil)
	return join
}

func TestARoomIsJoinedAgainWithItsPositionAfterEachReconnect(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		join := w.member(p, "r", frame{"epoch": "e", "offset": 7})
		equal(t, join["payload"], any(nil))
		p.message("eight", "r", 8)
		w.until(`message "eight"`, 1)
		p.drop()
		p = w.reconnected()
		join = p.answerJoin(frame{"epoch": "e", "offset": 10, "recovered": true, "count": 2})
		equal(t, fmt.Sprint(join["payload"]), "map[since:map[epoch:e offset:8]]")
		p.message("nine", "r", 9)
		p.message("ten", "r", 10)
		w.until(`message "ten"`, 1)
		equal(t, w.of("message"), []string{`"eight" r 8`, `"nine" r 9`, `"ten" r 10`})
		p.drop()
		p = w.reconnected()
		p.answerJoin(frame{"epoch": "f", "offset": 2, "recovered": false, "reason": "epoch"})
		p.message("three", "r", 3)
		w.until(`message "three"`, 1)
		equal(t, w.of("recovered"), []string{"r true", "r false epoch"})
	})
}

func TestARoomThatHasLostItsHistoryDidNotRecover(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		w.member(p, "r", frame{"epoch": "e", "offset": 7})
		p.drop()
		p = w.reconnected()
		p.answerJoin(nil)
		p.message("new", "r", 0)
		w.until(`message "new"`, 1)
		equal(t, w.of("recovered"), []string{"r false no_history"})
		recovered, known := w.client.Room("r").Recovered()
		equal(t, []bool{recovered, known}, []bool{false, true})
	})
}

func TestTheOldMessagesOfALateComerAreNoRepetitions(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		joining := w.join("r", JoinOptions{Last: 2})
		join := p.answerJoin(frame{"epoch": "e", "offset": 7, "recovered": true, "count": 2})
		equal(t, fmt.Sprint(join["payload"]), "map[last:2]")
		equal(t, <-joining, nil)
		_, known := w.client.Room("r").Recovered()
		equal(t, known, false)
		p.message(6, "r", 6)
		p.message(7, "r", 7)
		w.until("message 7", 1)
		equal(t, w.of("message"), []string{"6 r 6", "7 r 7"})
	})
}

func TestRepetitionsAreDroppedAndAGapLeadsToAnotherJoin(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		w.member(p, "r", frame{"epoch": "e", "offset": 1})
		for _, offset := range []int{2, 2, 1, 5, 6} {
			p.message(offset, "r", offset)
		}
		join := p.answerJoin(frame{"epoch": "e", "offset": 6, "recovered": true, "count": 4})
		equal(t, fmt.Sprint(join["payload"]), "map[since:map[epoch:e offset:2]]")
		for _, offset := range []int{3, 4, 5, 6} {
			p.message(offset, "r", offset)
		}
		w.until("message 6", 1)
		equal(t, w.of("message"), []string{"2 r 2", "3 r 3", "4 r 4", "5 r 5", "6 r 6"})
	})
}

func TestAMemberThatMissedMessagesLearnsItFromJoined(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		w.watch("r")
		joining := w.join("r", JoinOptions{})
		join := p.receive()
		// The one before the answer belongs to the join.
		p.send("joined", frame{"room": "r", "epoch": "e", "offset": 1, "recovered": false, "reason": "epoch"})
		p.ack(join, frame{"room": frame{"epoch": "e", "offset": 1}})
		equal(t, <-joining, nil)
		p.send("joined", frame{"room": "r", "epoch": "e", "offset": 9, "recovered": false, "reason": "expired"})
		p.message("ten", "r", 10)
		w.until(`message "ten"`, 1)
		equal(t, w.of("recovered"), []string{"r false expired"})
	})
}

func TestAtMostFiftyJoinsWaitForTheirAnswersInTheOrderOfTheMemberships(t *testing.T) {
	play(t, Options{}, func(w *world) {
		for number := range 60 {
			w.join(fmt.Sprint("r", number), JoinOptions{})
		}
		p := w.connected()
		var joins []frame
		for number := range 50 {
			joins = append(joins, p.receive())
			equal(t, joins[number]["room"], any(fmt.Sprint("r", number)))
		}
		p.ack(joins[0])
		last := p.receive()
		equal(t, last["room"], any("r50"))
		for _, join := range append(joins[1:], last) {
			p.ack(join)
		}
		for number := 51; number < 60; number++ {
			equal(t, p.answerJoin(nil)["room"], any(fmt.Sprint("r", number)))
		}
		w.eventually("all joined", func() bool { return len(w.client.JoinedRooms()) == 60 })
	})
}

func TestAJoinThatMaySucceedLaterIsRetriedAndOneThatIsRefusedEndsTheMembership(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		w.watch("r")
		joining := w.join("r", JoinOptions{})
		for _, wait := range []time.Duration{1, 2, 4} {
			p.refuse(p.receive(), "room_full", true)
			w.wait(wait * time.Second)
		}
		p.refuse(p.receive(), "forbidden_room", false)
		equal(t, CodeOf(<-joining), "forbidden_room")
		equal(t, w.until("left", 1), "left r forbidden_room")
		p.drop()
		w.answersNext(w.reconnected())
	})
}

// answersNext checks that the next frame of the client is a message: no join comes before it.
func (w *world) answersNext(p *peer) {
	w.t.Helper()
	call := w.start(Outgoing{})
	next := p.receive()
	equal(w.t, next["type"], any("note"))
	p.ack(next)
	equal(w.t, (<-call).err, nil)
}

func TestTheServerCanEndAMembership(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		w.member(p, "r", nil)
		p.send("left", frame{"room": "r"})
		equal(t, w.until("left", 1), "left r removed")
		equal(t, w.client.JoinedRooms(), []string{})
	})
}

func TestALeftAfterALeaveSaysNothingAboutTheNextJoin(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		w.member(p, "r", nil)
		left := make(chan error, 1)
		go func() { left <- w.client.Leave(context.Background(), "r") }()
		leave := p.receive()
		equal(t, leave["type"], any("leave"))
		joining := w.join("r", JoinOptions{})
		join := p.receive()
		p.send("left", frame{"room": "r"})
		p.ack(leave)
		equal(t, <-left, nil)
		p.ack(join)
		equal(t, <-joining, nil)
		equal(t, w.client.JoinedRooms(), []string{"r"})
		equal(t, w.of("left"), nil)
	})
}

func TestARoomTokenThatExpiresIsReplaced(t *testing.T) {
	tokens := make(chan string, 2)
	tokens <- "one"
	tokens <- "two"
	fetch := func(_ context.Context, room string) (string, error) { return <-tokens + room, nil }
	play(t, Options{}, func(w *world) {
		p := w.connected()
		joining := w.join("r", JoinOptions{GetToken: fetch})
		join := p.answerJoin(frame{"epoch": "e", "offset": 3})
		equal(t, fmt.Sprint(join["payload"]), "map[token:oner]")
		equal(t, <-joining, nil)
		p.send("left", frame{"room": "r", "reason": "expired"})
		join = p.answerJoin(frame{"epoch": "e", "offset": 3, "recovered": true})
		equal(t, fmt.Sprint(join["payload"]), "map[since:map[epoch:e offset:3] token:twor]")
	})
}

func TestARoomTokenThatIsDeniedEndsTheMembership(t *testing.T) {
	deny := func(context.Context, string) (string, error) { return "", errors.Join(ErrTokenDenied) }
	play(t, Options{}, func(w *world) {
		w.connected()
		equal(t, CodeOf(<-w.join("r", JoinOptions{GetToken: deny})), CodeUnauthorized)
	})
}

func TestJoiningTwiceChangesTheOptionsOfOneMembership(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		first := w.join("r", JoinOptions{})
		join := p.receive()
		second := w.join("r", JoinOptions{Presence: true})
		p.ack(join)
		equal(t, fmt.Sprint(p.answerJoin(nil)["payload"]), "map[presence:true]")
		equal(t, <-first, nil)
		equal(t, <-second, nil)
		p.drop()
		p = w.reconnected()
		equal(t, fmt.Sprint(p.answerJoin(nil)["payload"]), "map[presence:true]")
		w.answersNext(p)
	})
}

func TestPresenceIsMergedAndStaysUntilTheNextList(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected()
		w.member(p, "r", nil)
		user := func(name string) frame { return frame{"userId": name, "connections": 1} }
		p.send("presence", frame{"room": "r", "total": 2, "members": []frame{user("ann"), user("bob")}})
		p.send("presence", frame{"room": "r", "total": 2, "joined": []frame{user("eve")}, "left": []string{"bob"}})
		p.send("presence", frame{"room": "r", "total": 2000})
		p.send("presence", frame{"room": "r", "total": 2001, "joined": []frame{user("bob")}})
		p.send("presence", frame{"room": "r", "total": 1, "members": []frame{user("ann")}})
		w.until("presence 1", 1)
		equal(t, w.of("presence"), []string{"2 [ann bob]", "2 [ann eve]", "2000 []", "2001 []", "1 [ann]"})
		p.drop()
		p = w.reconnected()
		equal(t, w.client.Room("r").Presence().Total, 1)
	})
}

func TestTheMessagesOfTheUserAreRecovered(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected(frame{"user": frame{"epoch": "u", "offset": 4}})
		p.message(5, "", 5)
		p.message(55, "", 5)
		p.message(0, "", 0)
		w.until("message 0", 1)
		p.drop()
		p = w.reconnected(frame{"user": frame{"epoch": "u", "offset": 6, "recovered": true, "count": 1}})
		equal(t, p.path, "/ws?since=u%3A5&userId=ann")
		p.message(6, "", 6)
		// A gap: the client comes back for the missing ones.
		p.message(8, "", 8)
		p = w.reconnected(frame{"user": frame{"epoch": "v", "offset": 1, "recovered": false, "reason": "epoch"}})
		equal(t, p.path, "/ws?since=u%3A6&userId=ann")
		w.until("recovered - false epoch", 1)
		equal(t, w.of("message"), []string{"5  5", "0  0", "6  6"})
	})
}

func TestAUserWhoMissedMessagesLearnsItFromJoined(t *testing.T) {
	play(t, Options{}, func(w *world) {
		p := w.connected(frame{"user": frame{"epoch": "u", "offset": 4}})
		p.send("joined", frame{"user": frame{"epoch": "v", "offset": 0, "recovered": false, "reason": "epoch"}})
		p.message(1, "", 1)
		w.until("message 1", 1)
		equal(t, w.of("recovered"), []string{"- false epoch"})
	})
}
