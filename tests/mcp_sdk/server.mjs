// A replica made with the TypeScript SDK: Streamable HTTP with sessions on /mcp, and the back door of replica.py.
import { randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import { require, sdk } from './sdk.mjs';

const express = require('express');
const { z } = require('zod');
const { McpServer } = sdk('server/mcp');
const { StreamableHTTPServerTransport } = sdk('server/streamableHttp');
const { StdioServerTransport } = sdk('server/stdio');
const { localhostHostValidation } = sdk('server/middleware/hostHeaderValidation');
const { isInitializeRequest, ElicitResultSchema, SubscribeRequestSchema, UnsubscribeRequestSchema } = sdk('types');
const { InMemoryTaskStore, InMemoryTaskMessageQueue } = sdk('experimental/tasks/stores/in-memory');
const { InMemoryEventStore } = sdk('examples/shared/inMemoryEventStore');

const { values: given } = parseArgs({
    options: {
        port: { type: 'string', default: '0' },
        name: { type: 'string', default: 'replica' },
        stdio: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
    },
});
const counted = { methods: {}, tools: {}, verbs: {}, statuses: {} };
const count = (what, key) => (counted[what][key] = (counted[what][key] ?? 0) + 1);
let [listening, running, cancelled] = [0, 0, 0];
const whoami = () => `${given.name}/${process.pid}`;
const text = value => ({ content: [{ type: 'text', text: `${value}` }] });
const pause = ms => new Promise(resolve => setTimeout(resolve, ms));
const transports = new Map();
const subscribers = new Map();
const taskStore = new InMemoryTaskStore();

async function slow(seconds, quiet, extra) {
    running += 1;
    try {
        const token = extra._meta?.progressToken;
        for (let step = 0; step < Math.round(seconds * 10); step += 1) {
            if (token !== undefined && !quiet) {
                await extra.sendNotification({
                    method: 'notifications/progress',
                    params: { progressToken: token, progress: step },
                });
            }
            await pause(100);
            if (extra.signal.aborted) {
                cancelled += 1;
                throw new Error('cancelled');
            }
        }
        return `${whoami()} took ${seconds} s`;
    } finally {
        running -= 1;
    }
}

async function touch(uri) {
    const servers = [...(subscribers.get(uri) ?? [])];
    await Promise.all(servers.map(server => server.server.sendResourceUpdated({ uri })));
    return servers.length;
}

function newServer() {
    const server = new McpServer(
        { name: 'tidegate-sdk-ts', version: '1.0.0' },
        {
            capabilities: {
                logging: {},
                resources: { subscribe: true, listChanged: true },
                tasks: { requests: { tools: { call: {} } } },
            },
            taskStore,
            taskMessageQueue: new InMemoryTaskMessageQueue(),
        },
    );
    let asked = 0;
    const tool = (name, inputSchema, run) => server.registerTool(name, { description: name, inputSchema }, run);
    tool('whoami', {}, () => text(whoami()));
    tool('count', {}, () => text((asked += 1)));
    tool('add', { a: z.number(), b: z.number() }, ({ a, b }) => text(a + b));
    tool('slow', { seconds: z.number(), quiet: z.boolean().optional() }, async ({ seconds, quiet }, extra) =>
        text(await slow(seconds, quiet, extra)));
    tool('echo', { text: z.string() }, given => text(given.text.length));
    tool('elicit', {}, async (_, extra) => {
        const requestedSchema = { type: 'object', properties: { colour: { type: 'string' } }, required: ['colour'] };
        const params = { mode: 'form', message: 'Which colour?', requestedSchema };
        const answer = await extra.sendRequest({ method: 'elicitation/create', params }, ElicitResultSchema);
        return text(answer.content?.colour ?? answer.action);
    });
    tool('polled', {}, async (_, extra) => {
        extra.closeSSEStream?.();
        await pause(300);
        return text(whoami());
    });
    tool('touch', { uri: z.string() }, async ({ uri }) => text(await touch(uri)));
    tool('fail', {}, () => ({ ...text('this tool fails'), isError: true }));
    server.experimental.tasks.registerToolTask(
        'job',
        { description: 'Runs as a task', inputSchema: {} },
        {
            async createTask(_, { taskStore, taskRequestedTtl }) {
                const task = await taskStore.createTask({ ttl: taskRequestedTtl, pollInterval: 50 });
                taskStore.storeTaskResult(task.taskId, 'completed', text(whoami()));
                return { task };
            },
            getTask: async (_, { taskId, taskStore }) => taskStore.getTask(taskId),
            getTaskResult: async (_, { taskId, taskStore }) => taskStore.getTaskResult(taskId),
        },
    );
    for (let number = 0; number < 8; number += 1) {
        const uri = `test://item/${number}`;
        server.registerResource(`item ${number}`, uri, {}, () => ({
            contents: [{ uri, text: `${uri} at ${given.name}` }],
        }));
    }
    server.server.setRequestHandler(SubscribeRequestSchema, ({ params: { uri } }) => {
        subscribers.set(uri, (subscribers.get(uri) ?? new Set()).add(server));
        return {};
    });
    server.server.setRequestHandler(UnsubscribeRequestSchema, ({ params: { uri } }) => {
        subscribers.get(uri)?.delete(server);
        return {};
    });
    return server;
}

function seen(body) {
    for (const message of Array.isArray(body) ? body : [body ?? {}]) {
        count('methods', message.method ?? 'response');
        if (message.method === 'tools/call') count('tools', message.params?.name ?? '');
    }
}

const app = express();
app.get('/counts', (_, response) =>
    response.json({ name: given.name, pid: process.pid, ...counted, listening, running, cancelled }));
app.post('/touch', async (request, response) => response.json({ told: await touch(request.query.uri) }));
app.use(localhostHostValidation());
app.use(express.json({ limit: '4mb' }));
app.all('/mcp', async (request, response) => {
    count('verbs', request.method);
    if (request.method === 'POST') seen(request.body);
    const listens = request.method === 'GET';
    listening += listens;
    response.on('close', () => {
        listening -= listens;
        count('statuses', response.statusCode);
    });
    const id = request.headers['mcp-session-id'];
    let transport = transports.get(id);
    if (!transport && !id && isInitializeRequest(request.body)) {
        transport = new StreamableHTTPServerTransport({
            sessionIdGenerator: () => randomUUID(),
            onsessioninitialized: made => transports.set(made, transport),
            eventStore: new InMemoryEventStore(),
            enableJsonResponse: given.json,
            retryInterval: 100,
        });
        const server = newServer();
        transport.onclose = () => {
            transports.delete(transport.sessionId);
            subscribers.forEach(servers => servers.delete(server));
        };
        await server.connect(transport);
    }
    if (!transport) {
        // As the SDK's own examples answer.
        const [status, code, message] = id
            ? [404, -32001, 'Session not found']
            : [400, -32000, 'Bad Request: No valid session ID provided'];
        return response.status(status).json({ jsonrpc: '2.0', error: { code, message }, id: null });
    }
    await transport.handleRequest(request, response, request.body);
});
if (given.stdio) {
    await newServer().connect(new StdioServerTransport());
} else {
    const listener = app.listen(Number(given.port), '127.0.0.1', () =>
        console.log(JSON.stringify({ ready: listener.address().port })));
}
