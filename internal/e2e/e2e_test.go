// Package e2e_test knows the server as its users do: a program, an address,
// the documented lines.
package e2e_test

import (
	"testing"

	"agentmarket.space/server/internal/e2e/program"
)

func TestMain(m *testing.M) { program.Main(m) }
