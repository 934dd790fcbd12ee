// Command pocketbase runs PocketBase with one public collection, tasks, for comparison. It
// logs no requests and commits with synchronous=FULL, which is as openDurable as the product.
//
//	pocketbase DIR ADDRESS
package main

import (
	"fmt"
	"net/http"
	"os"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: pocketbase DIR ADDRESS")
		os.Exit(2)
	}
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "pocketbase:", err)
		os.Exit(1)
	}
}

func serve(dir, addr string) error {
	app := pocketbase.NewWithConfig(pocketbase.Config{DefaultDataDir: dir, HideStartBanner: true, DBConnect: openDurable})
	app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		e.InstallerFunc = nil // it would print a link for the first administrator
		e.Router.GET("/readyz", func(e *core.RequestEvent) error { return e.NoContent(http.StatusOK) })
		return e.Next()
	})
	if err := app.Bootstrap(); err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	app.Settings().Logs.MaxDays = 0
	if err := app.Save(app.Settings()); err != nil {
		return fmt.Errorf("turn the log off: %w", err)
	}
	if err := app.Save(newTasksCollection()); err != nil {
		return fmt.Errorf("make the collection: %w", err)
	}
	return apis.Serve(app, apis.ServeConfig{HttpAddr: addr})
}

// openDurable opens a database with the settings of core.DefaultDBConnect except
// synchronous=FULL instead of NORMAL.
func openDurable(file string) (*dbx.DB, error) {
	return dbx.Open("sqlite", file+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=journal_size_limit(200000000)"+
		"&_pragma=synchronous(FULL)&_pragma=foreign_keys(ON)&_pragma=temp_store(MEMORY)&_pragma=cache_size(-32000)")
}

// newTasksCollection returns the collection with the fields of a task in the product.
func newTasksCollection() *core.Collection {
	open := types.Pointer("")
	c := core.NewBaseCollection("tasks")
	c.ListRule, c.ViewRule, c.CreateRule = open, open, open
	c.Fields.Add(
		&core.TextField{Name: "title", Required: true},
		&core.TextField{Name: "description", Max: 10_000},
		&core.NumberField{Name: "budget", OnlyInt: true},
		&core.JSONField{Name: "requiredCapabilities"},
		&core.TextField{Name: "status"},
		&core.TextField{Name: "poster"},
		&core.AutodateField{Name: "created", OnCreate: true},
	)
	c.AddIndex("tasks_listed", false, "status, created", "")
	return c
}
