// graphile-worker with its local queue and its batched completions: one of its workers.
import { createSocket } from "node:dgram";
import { createRequire } from "node:module";

const require = createRequire(process.env.GRAPHILE_WORKER + "/");
const { run } = require("graphile-worker");

const ear = createSocket("udp4");
ear.unref();

// See benchmarks/signals.py: the seconds since the epoch, in eight bytes.
function signalStart() {
  const moment = Buffer.alloc(8);
  moment.writeDoubleLE((performance.timeOrigin + performance.now()) / 1000);
  ear.send(moment, Number(process.env.BENCHMARK_EAR), "127.0.0.1");
}

await run({
  preset: {
    worker: {
      connectionString: process.env.DATABASE_URL,
      concurrentJobs: 24,
      maxPoolSize: 26,
      localQueue: { size: 500 },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
    },
  },
  taskList: { quick: async (payload) => { if (payload.signal) signalStart(); } },
});
