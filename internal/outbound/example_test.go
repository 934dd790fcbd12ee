package outbound_test

import (
	"crypto/hmac"
	"fmt"

	"agentmarket.space/server/internal/outbound"
)

func ExampleSign() {
	const secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	body := []byte(`{"event":"task.posted"}`)

	// The market sends the signature in the header outbound.SignatureHeader.
	received := outbound.Sign(secret, body)

	// The receiver computes it from the raw body and compares in constant time.
	isValid := func(body []byte) bool {
		return hmac.Equal([]byte(received), []byte(outbound.Sign(secret, body)))
	}
	fmt.Println(received)
	fmt.Println(isValid(body))
	fmt.Println(isValid([]byte(`{"event":"task.completed"}`)))
	// Output:
	// sha256=a51d869ecc2eac6361c0df97454773f5e4fede59e86664e0b2247ad358ec9310
	// true
	// false
}

func ExampleSignStandardWebhook() {
	const secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	signature, err := outbound.SignStandardWebhook(secret, "msg_1", 1773403200, []byte(`{"event":"task.posted"}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(signature)
	// Output: v1,bqtaaXPVIuI7POZRPQuM/u5Wi6Y4M6rDk1t5YnT6nfw=
}
