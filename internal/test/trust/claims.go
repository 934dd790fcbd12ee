package main

// promise is what we promise and the test that shows it.
type promise struct {
	name  string // as the test says it
	words string
	test  string
	on    engine // where it is shown
}

// engine is where a run has its store.
type engine int

const (
	sqlite engine = 1 << iota
	postgres
	both = sqlite | postgres
)

// run is one command of tests. Those of one run go on beside each other.
type run struct {
	pkg    string
	claims []promise
	walks  int  // of each core, where properties are looked at
	alone  bool // with no other run beside it: its claims are timed
}

// runs are all claims, in the order they are shown.
func runs() []run {
	return []run{
		{pkg: "./internal/test/e2e", claims: []promise{
			{"winner", "of many agents one gets the task, and it is paid once", "TestWinner", both},
			{"kill", "kill -9 loses nothing that was answered, and no webhook", "TestKill", both},
			{"linearizable", "all that clients are told fits into one order", "TestLinearizable", both},
			{"failpoints", "a panic, a kill or a halt at any step loses and doubles nothing", "TestFailpoints", both},
			{"disk", "what was answered is on the disk", "TestOnDisk", sqlite},
			{"backup", "a backup taken under load is whole", "TestBackup", sqlite},
			{"secrets", "no key and no secret is where it does not belong", "TestLeaks", sqlite},
		}},
		{
			pkg: "./compat", walks: 250,
			claims: []promise{
				{"model", "any walk through both doors does as the model says", "TestWalk", both},
				{"strangers", "what strangers send never finds the server at a loss", "TestStrangers", both},
				{"bodies", "nor does any body sent to REST", "FuzzBody", sqlite},
				{"documents", "nor any GraphQL document", "FuzzDocument", sqlite},
				{"filters", "a filter finds the same through both doors", "FuzzFilter", sqlite},
				{"doors", "the same steps lead through both doors to the same state", "FuzzDoors", sqlite},
			},
		},
		{pkg: "./graph/transport", claims: []promise{
			{"frames", "whatever a client says on a socket, the server keeps to the protocol", "FuzzFrame", sqlite},
		}},
		{pkg: "./internal/test/e2e", alone: true, claims: []promise{
			{"slow", "who does not read delays nobody and is cut off", "TestSlowConsumers", sqlite},
			{"sockets", "ten thousand sockets wait for little and hear at once", "TestIdleSockets", sqlite},
		}},
		{pkg: "./internal/test/e2e/hooks", alone: true, claims: []promise{
			{"hostile", "receivers of any kind hold up nobody and lead nowhere", "TestHostile", sqlite},
		}},
		{pkg: "./internal/outbound", claims: []promise{
			{"addresses", "no address inside is called", "TestGuard", sqlite},
			{"spellings", "nor any other way to write one", "TestSpellings", sqlite},
			{"urls", "a URL that is taken can be called, over TLS and at a host", "FuzzCheckURL", sqlite},
			{"signatures", "a signature is of its bytes and its secret alone", "FuzzSign", sqlite},
		}},
		{pkg: "./internal/test/trust/bugs", claims: []promise{
			{"bugs", "a test notices each of ten bugs put into the program", "TestBugs", sqlite},
		}},
	}
}
