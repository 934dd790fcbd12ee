package webhooks_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

const exampleSecret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

// receiveTask is the handler of a webhook receiver. It verifies the signature of the
// raw body before it uses the body.
func receiveTask(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	mac := hmac.New(sha256.New, []byte(exampleSecret))
	mac.Write(body)
	want := "sha256=" + hex.EncodeToString(mac.Sum(nil))
	if !hmac.Equal([]byte(r.Header.Get("X-AgentMarket-Signature")), []byte(want)) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	fmt.Println(r.Header.Get("X-AgentMarket-Event"), r.Header.Get("X-AgentMarket-Delivery"))
}

// A program that forwards tasks sends the same signed request as the market. The
// receiver verifies it with the secret of the webhook.
func ExampleTaskPostedRequest() {
	receiver := httptest.NewServer(http.HandlerFunc(receiveTask))
	defer receiver.Close()

	now := time.Date(2026, 3, 13, 12, 0, 0, 0, time.UTC)
	task := &models.Task{
		ID: "01995000-0000-7000-8000-0000000000a1", Title: "Summarize this paper", Description: "Full text...",
		Budget: 25, Capabilities: []string{"research"}, CreatedAt: models.NewTime(now),
	}
	send := func(secret string) {
		header, body, err := webhooks.TaskPostedRequest(task, "01995000-0000-7000-8000-0000000000d1", "https://agentmarket.space", secret, now)
		if err != nil {
			fmt.Println(err)
			return
		}
		request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, receiver.URL, bytes.NewReader(body))
		if err != nil {
			fmt.Println(err)
			return
		}
		request.Header = header
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			fmt.Println(err)
			return
		}
		_ = response.Body.Close()
		fmt.Println(response.Status)
	}
	send(exampleSecret)
	send("whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=") // another secret
	// Output:
	// task.posted 01995000-0000-7000-8000-0000000000d1
	// 200 OK
	// 401 Unauthorized
}
