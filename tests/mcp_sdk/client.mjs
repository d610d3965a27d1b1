// Clients of the TypeScript SDK; what they can be asked is told in commands.py.
import { createInterface } from 'node:readline';
import { sdk } from './sdk.mjs';

const { Client } = sdk('client/index');
const { StreamableHTTPClientTransport } = sdk('client/streamableHttp');
const { SSEClientTransport } = sdk('client/sse');
const { CallToolResultSchema, ElicitRequestSchema, ResourceUpdatedNotificationSchema } = sdk('types');

const PATIENCE = 20_000;
const url = process.argv[2];
const pause = ms => new Promise(resolve => setTimeout(resolve, ms));
const plain = result => [(result.content ?? []).map(part => part.text ?? '').join(''), Boolean(result.isError)];
let held = [];
let load;

class Tally {
    constructor() {
        Object.assign(this, { ok: 0, failed: 0, errors: [], texts: {}, slowest: 0 });
    }

    async of(future, good = (_, bad) => !bad, patience = PATIENCE) {
        const begun = performance.now();
        let timer;
        const late = new Promise((_, refuse) => (timer = setTimeout(() => refuse(new Error('timed out')), patience)));
        try {
            const [text, bad] = await Promise.race([future, late]);
            this.slowest = Math.max(this.slowest, performance.now() - begun);
            this.texts[text] = (this.texts[text] ?? 0) + 1;
            if (good(text, bad)) this.ok += 1;
            else this.fail(text);
            return text;
        } catch (error) {
            this.fail(`${error}`.slice(0, 300));
            return undefined;
        } finally {
            clearTimeout(timer);
        }
    }

    fail(error) {
        this.failed += 1;
        if (this.errors.length < 5 && !this.errors.includes(error)) this.errors.push(error);
    }

    told(more = {}) {
        const { ok, failed, errors, texts } = this;
        return { ok, failed, errors, texts, slowest_ms: Math.round(this.slowest), ...more };
    }
}

async function connect(how) {
    const capabilities = { elicitation: {} };
    const client = new Client({ name: 'tidegate-sdk-ts', version: '1.0.0' }, { capabilities });
    const heard = new Set();
    client.setRequestHandler(ElicitRequestSchema, () => ({ action: 'accept', content: { colour: 'blue' } }));
    client.setNotificationHandler(ResourceUpdatedNotificationSchema, ({ params }) => heard.add(params.uri));
    const options = { requestInit: { headers: how.headers ?? {} } };
    const target = new URL(how.url ?? url);
    const transport = how.transport === 'sse'
        ? new SSEClientTransport(target, options)
        : new StreamableHTTPClientTransport(target, options);
    await client.connect(transport);
    const call = async (name, args, onprogress, signal) =>
        plain(await client.callTool({ name, arguments: args }, CallToolResultSchema, {
            timeout: 90_000, ...(onprogress && { onprogress }), ...(signal && { signal }),
        }));
    return { client, transport, heard, call, version: transport.protocolVersion ?? '2024-11-05' };
}

async function end({ client, transport }) {
    await transport.terminateSession?.().catch(() => {});
    await client.close();
}

const chosen = given => given.sessions?.map(index => held[index]) ?? held;
const each = (given, run) => Promise.all(chosen(given).map(run));

const commands = {
    async open(given) {
        const [tally, versions] = [new Tally(), {}];
        for (let number = 0; number < (given.count ?? 1); number += 1) {
            await tally.of(connect(given).then(session => {
                held.push(session);
                versions[session.version] = (versions[session.version] ?? 0) + 1;
                return [session.version, false];
            }));
        }
        return tally.told({ versions });
    },
    async call(given) {
        const tally = new Tally();
        const steady = await each(given, async session => {
            const texts = new Set();
            for (let number = 0; number < (given.times ?? 1); number += 1) {
                const good = given.text ? text => text === given.text : (_, bad) => !bad;
                const call = session.call(given.tool, given.arguments ?? {});
                const patience = given.patience && given.patience * 1000;
                texts.add(await tally.of(call, good, patience));
            }
            return texts.size === 1 && !texts.has(undefined);
        });
        return tally.told({ steady: steady.filter(Boolean).length });
    },
    echo: given =>
        commands.call({ ...given, tool: 'echo', arguments: { text: 'x'.repeat(given.size) }, text: `${given.size}` }),
    async list(given) {
        const tally = new Tally();
        await each(given, async ({ client }) => {
            for (let number = 0; number < (given.times ?? 1); number += 1) {
                const names = client.listTools().then(({ tools }) => tools.map(tool => tool.name).sort().join());
                await tally.of(names.then(names => [names, false]));
            }
        });
        return tally.told();
    },
    async progress(given) {
        const tally = new Tally();
        let [events, widest] = [0, 0];
        await each(given, async session => {
            let last;
            await tally.of(session.call('slow', { seconds: given.seconds }, () => {
                const now = performance.now();
                if (last !== undefined) widest = Math.max(widest, now - last);
                [last, events] = [now, events + 1];
            }));
        });
        return tally.told({ events, widest_gap_ms: Math.round(widest) });
    },
    async cancel(given) {
        let ok = 0;
        await each(given, async session => {
            const ending = new AbortController();
            const begun = new Promise(resolve => {
                session.call('slow', { seconds: 60 }, resolve, ending.signal).catch(() => {});
            });
            await Promise.race([begun.then(() => (ok += 1)), pause(PATIENCE)]);
            ending.abort();
        });
        return { ok, failed: chosen(given).length - ok };
    },
    async listen(given) {
        const tally = new Tally();
        await each(given, session => tally.of((async () => {
            for (const uri of given.uris) await session.client.subscribeResource({ uri });
            return ['subscribed', false];
        })()));
        return tally.told();
    },
    heard: given => ({
        heard: chosen(given).map(({ heard }) => [...heard].sort()),
        lost: chosen(given).map(() => null),
    }),
    load(given) {
        load = { tally: new Tally(), over: false };
        const { tally } = load;
        const mine = load;
        load.tasks = chosen(given).map(async session => {
            while (!mine.over) {
                await tally.of(session.call(given.tool ?? 'add', given.arguments ?? { a: 1, b: 2 }));
                await pause((given.gap ?? 0.005) * 1000);
            }
        });
        return { ok: load.tasks.length, failed: 0 };
    },
    so_far: () => load.tally.told(),
    async rest() {
        load.over = true;
        await Promise.all(load.tasks);
        return load.tally.told();
    },
    async tasks(given) {
        const tally = new Tally();
        for (const { client } of chosen(given)) {
            for (let number = 0; number < (given.count ?? 1); number += 1) {
                await tally.of((async () => {
                    const params = { name: 'job', arguments: {} };
                    const stream = client.experimental.tasks.callToolStream(params, CallToolResultSchema, { task: {} });
                    for await (const message of stream) {
                        if (message.type === 'result') return plain(message.result);
                        if (message.type === 'error') throw message.error;
                    }
                    throw new Error('the task gave no result');
                })());
            }
        }
        return tally.told();
    },
    async close(given) {
        const ending = [...chosen(given)];
        await Promise.all(ending.map(end));
        held = held.filter(session => !ending.includes(session));
        return { ok: ending.length, failed: 0, errors: [] };
    },
    async fresh(given) {
        const [tally, versions] = [new Tally(), {}];
        for (let number = 0; number < (given.count ?? 1); number += 1) {
            await tally.of((async () => {
                const session = await connect(given);
                versions[session.version] = (versions[session.version] ?? 0) + 1;
                try {
                    return await session.call(given.tool ?? 'whoami', given.arguments ?? {});
                } finally {
                    await end(session);
                }
            })());
        }
        return tally.told({ versions });
    },
};

for await (const line of createInterface({ input: process.stdin })) {
    const given = JSON.parse(line);
    if (given.do === 'quit') break;
    let said;
    try {
        said = await commands[given.do](given);
    } catch (error) {
        said = { ok: 0, failed: 1, errors: [`${error}`] };
    }
    console.log(JSON.stringify(said));
}
process.exit(0);
