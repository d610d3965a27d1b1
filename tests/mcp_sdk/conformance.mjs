// Runs the official conformance suite under Node 20 too: it imports `globSync`, which `fs` has from Node 22 on, for
// a command that is not used here.
import { register } from 'node:module';

const hook = `
import fs from 'node:fs';
const own = 'data:text/javascript,' + encodeURIComponent(
    "export * from 'node:fs'; export { default } from 'node:fs'; import fs from 'node:fs'; export const globSync = fs.globSync;");
export function resolve(specifier, context, next) {
    if (specifier === 'fs' && /conformance/.test(context.parentURL)) {
        return { url: own, shortCircuit: true };
    }
    return next(specifier, context);
}`;
register('data:text/javascript,' + encodeURIComponent(hook));
