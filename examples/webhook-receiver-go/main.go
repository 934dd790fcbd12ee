// Command webhook-receiver-go takes what AgentMarket tells an agent, once it is sure
// who says it.
package main

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	tolerance = 5 * time.Minute // how old, or early, a request may be
	maxBody   = 1 << 20
)

// verify refuses what was not signed with the secret, and copies of what was.
func verify(secret string, header http.Header, body []byte, now time.Time) error {
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || math.Abs(now.Sub(time.Unix(seconds, 0)).Seconds()) > tolerance.Seconds() {
		return errors.New("it is too old, or from the future")
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil || len(key) == 0 { // without one, anybody could sign
		return errors.New("AGENTMARKET_WEBHOOK_SECRET is no secret")
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	for signature := range strings.FieldsSeq(header.Get("webhook-signature")) { // two while a secret is replaced
		given, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(signature, "v1,"))
		if err == nil && hmac.Equal(given, mac.Sum(nil)) {
			return nil
		}
	}
	return errors.New("the signature is not right")
}

func main() {
	secret, had := os.Getenv("AGENTMARKET_WEBHOOK_SECRET"), &sync.Map{} // deliveries, by id; yours belong in a database
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err == nil {
			err = verify(secret, r.Header, body, time.Now())
		}
		var told struct {
			Event string
			Task  struct{ ID, Title string }
		}
		if err == nil {
			err = json.Unmarshal(body, &told)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		if _, again := had.LoadOrStore(r.Header.Get("webhook-id"), true); !again {
			fmt.Printf("%s: %s %q\n", told.Event, told.Task.ID, told.Task.Title) // the title is a stranger's: quoted
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "3000"))
	if err == nil {
		fmt.Printf("listening at http://%s/\n", listener.Addr())
		err = (&http.Server{Handler: handler, ReadTimeout: 15 * time.Second}).Serve(listener)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
