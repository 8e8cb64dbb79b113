package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"signalbox/client"
)

type answer struct {
	status int
	body   string
}

// backend gives the next of its answers, and remembers requests.
type backend struct {
	answers  []answer
	requests []string
}

func (b *backend) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	body, _ := io.ReadAll(request.Body)
	b.requests = append(b.requests, fmt.Sprintf("%s %s %s%s",
		request.Method, request.URL.RequestURI(), body, request.Header.Get("Idempotency-Key")))
	if request.Header.Get("Authorization") != "Bearer key" {
		writer.WriteHeader(http.StatusUnauthorized)
		return
	}
	next := b.answers[0]
	b.answers = b.answers[1:]
	writer.WriteHeader(next.status)
	_, _ = writer.Write([]byte(next.body))
}

func serve(t *testing.T, answers ...answer) (*backend, *API) {
	t.Helper()
	b := &backend{answers: answers}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	a, err := New(server.URL+"/", "key")
	if err != nil {
		t.Fatal(err)
	}
	return b, a
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %#v, want %#v", got, want)
	}
}

func TestMessagesAreSentToOneAndToMany(t *testing.T) {
	one := `{"messageId":"m","status":"delivered","data":1,"duplicate":true}`
	refused := `"error":{"code":"blank","message":"no text","plugin":"chat","retryable":false}`
	many := `{"results":[{"receiverId":"ann","messageId":"n","status":"offline"},{"receiverId":"bob",` + refused + `}]}`
	b, a := serve(t, answer{200, one}, answer{200, many}, answer{200, `{"results":[` + one + `,` + many + `,{` + refused + `}]}`})
	ctx := context.Background()
	sent, err := a.Send(ctx, Message{Type: "t", Payload: map[string]int{"a": 1}, To: "ann"}, "k")
	equal(t, err, nil)
	equal(t, sent, []Sent{{Status: "delivered", MessageID: "m", Data: json.RawMessage("1"), Duplicate: true}})
	sent, err = a.Send(ctx, Message{Type: "t", Users: []string{"ann", "bob"}, Sender: "kitchen", Raw: true}, "")
	equal(t, err, nil)
	equal(t, []string{sent[0].User, sent[0].Status, sent[1].User, sent[1].Err.Plugin}, []string{"ann", "offline", "bob", "chat"})
	batch, err := a.Batch(ctx, []Message{{Type: "t", Everyone: true}}, "")
	equal(t, err, nil)
	equal(t, []int{len(batch[0]), len(batch[1]), len(batch[2])}, []int{1, 2, 1})
	equal(t, batch[2][0].Err.Code, "blank")
	equal(t, b.requests, []string{
		`POST /api/messages {"type":"t","payload":{"a":1},"receiverId":"ann"}k`,
		`POST /api/messages {"type":"t","payload":null,"receiverIds":["ann","bob"],"senderId":"kitchen","raw":true}`,
		`POST /api/batch {"messages":[{"type":"t","payload":null,"everyone":true}]}`,
	})
}

func TestNamesAreEncodedAndAnswersAreRead(t *testing.T) {
	b, a := serve(t,
		answer{200, `{"online":true,"nodes":["n"],"connections":2}`},
		answer{200, `{"online":["ann"]}`},
		answer{200, `{"connections":1,"blockedUntil":99}`},
		answer{200, `{"connections":2,"failed":1}`},
		answer{200, `{"connections":2}`},
		answer{200, `{"connections":3,"nodes":[],"history":{"epoch":"e","offset":9},"unanswered":["x"]}`},
		answer{200, `{"total":5,"members":[{"userId":"ann","connections":2,"since":"2026-01-01T00:00:00.000Z","info":{"a":1}}]}`},
		answer{200, `{"epoch":"e","offset":9,"hasOlder":true,"messages":[{"type":"t","payload":1,"room":"a/b","offset":8}]}`},
		answer{200, `{"until":77}`},
	)
	ctx := context.Background()
	user, _ := a.User(ctx, "a n")
	equal(t, user.Connections, 2)
	online, _ := a.Online(ctx, []string{"ann", "bob"})
	equal(t, online, []string{"ann"})
	gone, _ := a.Disconnect(ctx, "ann", Disconnect{Code: 4501, Block: "10m"})
	equal(t, gone.BlockedUntil, int64(99))
	change, _ := a.AddToRoom(ctx, "a/b", "ü")
	equal(t, change, RoomChange{Connections: 2, Failed: 1})
	change, _ = a.RemoveFromRoom(ctx, "a/b", "ü")
	equal(t, change.Connections, 2)
	room, _ := a.Room(ctx, "a/b")
	equal(t, *room.History, Position{"e", 9})
	members, _ := a.Members(ctx, "a/b")
	equal(t, string(members.Members[0].Info), `{"a":1}`)
	page, _ := a.History(ctx, "a/b", 9, 1)
	equal(t, []any{page.Messages[0].Offset, page.HasOlder}, []any{int64(8), true})
	until, _ := a.Revoke(ctx, Revocation{User: "ann", Until: 77})
	equal(t, until.Unix(), int64(77))
	equal(t, b.requests, []string{
		`GET /api/users/a%20n `,
		`POST /api/users/online {"users":["ann","bob"]}`,
		`POST /api/users/ann/disconnect {"code":4501,"block":"10m"}`,
		`PUT /api/rooms/a%2Fb/members/%C3%BC `,
		`DELETE /api/rooms/a%2Fb/members/%C3%BC `,
		`GET /api/rooms/a%2Fb `,
		`GET /api/rooms/a%2Fb/members `,
		`GET /api/rooms/a%2Fb/history?before=9&limit=1 `,
		`POST /api/tokens/revoke {"user":"ann","until":77}`,
	})
}

func TestARefusalIsAnErrorWithItsStatus(t *testing.T) {
	_, a := serve(t, answer{503, `{"error":{"code":"unavailable","message":"later","retryable":true}}`}, answer{404, "?"})
	_, err := a.User(context.Background(), "ann")
	equal(t, err, error(&client.Error{Code: "unavailable", Message: "later", Retryable: true, Status: 503}))
	_, err = a.User(context.Background(), "ann")
	equal(t, err, error(&client.Error{Code: client.CodeRefused, Message: "HTTP 404", Status: 404}))
}

func TestAFailedSendHasNoResults(t *testing.T) {
	_, a := serve(t, answer{400, `{"error":{"code":"invalid_type","message":"no","retryable":false}}`})
	sent, err := a.Send(context.Background(), Message{Type: "a b"}, "")
	equal(t, client.CodeOf(err), "invalid_type")
	equal(t, len(sent), 0)
}
