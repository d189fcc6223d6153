// Tries decode.mjs with every vector.

import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { decode } from './decode.mjs'

const dir = new URL('../../../testdata/vectors/', import.meta.url)
let tried = 0
for (const file of readdirSync(dir).filter((name) => name.endsWith('.json'))) {
  const { event, binary, structured } = JSON.parse(readFileSync(new URL(file, dir)))
  for (const [mode, message] of Object.entries({ binary, structured })) {
    const body = message.body_base64 ? Buffer.from(message.body_base64, 'base64') : Buffer.from(message.body ?? '')
    const got = decode(Object.keys(message.headers), (name) => message.headers[name] ?? '', body)
    assert.deepEqual(got.attributes, event.attributes, `${file}, ${mode}`)
    const want = event.data_base64 ? Buffer.from(event.data_base64, 'base64') : event.data === undefined ? null : Buffer.from(event.data)
    if (want === null || mode === 'binary' || !/json/.test(event.attributes.datacontenttype)) {
      assert.deepEqual(got.data && Buffer.from(got.data), want, `${file}, ${mode}`)
    } else {
      assert.deepEqual(JSON.parse(got.data), JSON.parse(want), `${file}, ${mode}`)
    }
    tried++
  }
}
console.log(tried, 'messages are read as they should be')
