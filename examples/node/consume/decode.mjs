// Reads an event of a NATS message that walrelay has written, in binary or structured mode.
//
// headers is a function from the name of a header to its value ('' without one), such as
// (name) => msg.headers?.get(name) ?? '', names are those that the message has, and body is a
// Uint8Array. Returns { attributes, data }: attributes are texts, data is a Uint8Array or null.
export function decode(names, headers, body) {
  if (/^application\/cloudevents\+json\b/i.test(headers('Content-Type'))) {
    return decodeJSON(body)
  }
  const attributes = {}
  for (const name of names) {
    if (!/^ce-/i.test(name)) continue
    // The binding asks for percent-encoding in headers; SDKs do not undo it.
    attributes[name.slice(3).toLowerCase()] = decodeURIComponent(headers(name).replace(/%(?![0-9a-f]{2})/gi, '%25'))
  }
  if (attributes.specversion !== '1.0') throw new Error('the message is not a CloudEvents 1.0 event')
  delete attributes.specversion
  return { attributes, data: body.length > 0 ? body : null }
}

// Bytes of the payload are kept as they are: JSON.parse would round large numbers.
function decodeJSON(body) {
  const text = new TextDecoder().decode(body)
  const { specversion, data, data_base64: base64, ...rest } = JSON.parse(text)
  if (specversion !== '1.0') throw new Error('the message is not a CloudEvents 1.0 event')
  const attributes = {}
  for (const [name, value] of Object.entries(rest)) attributes[name] = String(value)
  if (base64 !== undefined) return { attributes, data: Buffer.from(base64, 'base64') }
  if (data === undefined) return { attributes, data: null }
  const isJSON = !attributes.datacontenttype || /^[^;]*[/+]json\s*(;|$)/i.test(attributes.datacontenttype)
  return { attributes, data: Buffer.from(isJSON ? JSON.stringify(data) : data) }
}
