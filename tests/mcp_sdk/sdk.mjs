// Where the TypeScript SDK is: in the folder that .ci/mcp-sdks fills.
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const folder = process.env.TIDEGATE_MCP_SDKS ?? fileURLToPath(new URL('../../target/mcp-sdks', import.meta.url));
export const require = createRequire(`${folder}/node/`);
export const sdk = name => require(`@modelcontextprotocol/sdk/${name}.js`);
