// A server that the benchmark compares with: Mercurius on fastify with its JIT,
// and better-sqlite3, written as their guides do. It answers the part of the
// product's schema that the benchmark sends. A posted task is one durable row;
// no key is checked, no money moved, and subscribers hear of every task.
//
//	node server.mjs HOST PORT DATABASE

import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import Database from 'better-sqlite3'
import Fastify from 'fastify'
import mercurius from 'mercurius'

const [host, port, file] = process.argv.slice(2)

const db = new Database(file)
db.pragma('journal_mode = WAL')
db.pragma('synchronous = FULL')
db.exec(`CREATE TABLE tasks (
  id TEXT PRIMARY KEY, title TEXT NOT NULL, description TEXT NOT NULL, budget INTEGER NOT NULL,
  capabilities TEXT NOT NULL, status TEXT NOT NULL, poster_id TEXT NOT NULL, created_at TEXT NOT NULL
) STRICT;
CREATE INDEX tasks_listed ON tasks (status, created_at)`)
const insert = db.prepare('INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?)')
const one = db.prepare('SELECT * FROM tasks WHERE id = ?')
const newest = db.prepare('SELECT * FROM tasks WHERE status = ? ORDER BY created_at DESC LIMIT ?')

const poster = { id: randomUUID() }
const taskOf = (row) => row && {
  id: row.id,
  title: row.title,
  description: row.description,
  budget: row.budget,
  requiredCapabilities: JSON.parse(row.capabilities),
  status: row.status,
  poster: { id: row.poster_id },
  createdAt: row.created_at
}

const resolvers = {
  Query: {
    task: (_, { id }) => taskOf(one.get(id)),
    tasks: (_, { first, filter }) => ({ nodes: newest.all(filter?.status?.[0] ?? 'OPEN', first).map(taskOf) })
  },
  Mutation: {
    postTask: (_, { input }, { pubsub }) => {
      const task = { id: randomUUID(), ...input, status: 'OPEN', poster, createdAt: new Date().toISOString() }
      const { lastInsertRowid: cursor } = insert.run(task.id, task.title, task.description, task.budget,
        JSON.stringify(task.requiredCapabilities), task.status, poster.id, task.createdAt)
      pubsub.publish({ topic: 'posted', payload: { taskPosted: { cursor: String(cursor), task } } })
      return { task }
    }
  },
  Subscription: {
    taskPosted: { subscribe: (_, args, { pubsub }) => pubsub.subscribe('posted') }
  }
}

const app = Fastify()
app.register(mercurius, {
  schema: readFileSync(new URL('../../baseline/schema.graphqls', import.meta.url), 'utf8'),
  resolvers,
  subscription: true,
  jit: 1
})
app.get('/readyz', async () => 'ok')
await app.listen({ host, port: Number(port) })
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => process.exit(0))
