// graphile-worker with its local queue and its batched completions: one of its workers.
import { createRequire } from "node:module";

const require = createRequire(process.env.GRAPHILE_WORKER + "/");
const { run } = require("graphile-worker");

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
  taskList: { quick: async () => {} },
});
