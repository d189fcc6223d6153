// Clicks through the console of a relay, as TestConsole_InABrowser prepares it. A line
// "do: THING" on standard output asks the test for something; it answers with a line.
import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const { CONSOLE_URL: url, CONSOLE_TOKEN: token, CHROMIUM: executablePath, SCREENSHOTS: shots } = process.env;
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function ask(thing) {
  console.log(`do: ${thing}`);
  const { value } = await answers.next();
  assert.equal(value, "done", thing);
}
const id = (n) => `00000000-0000-0000-0000-00000000000${n}`;

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const problems = [];

// visit opens a window in which nothing may go wrong.
async function visit(name, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.on("pageerror", (error) => problems.push(`${name}: ${error.message}`));
  page.on("dialog", (dialog) => { problems.push(`${name}: a dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("console", (message) => {
    const text = message.text();
    // A wrong token and a page that does not exist; and while the relay restarts nobody answers.
    if (message.type() === "error" && !/status of 401|status of 404|ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE/.test(text)) problems.push(`${name}: ${text}`);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url)) problems.push(`${name}: asks for ${request.url()}`);
  });
  await page.addInitScript(() => {
    window.shift = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
    }).observe({ type: "layout-shift", buffered: true });
  });
  page.shot = (what) => page.screenshot({ path: `${shots}/${name}-${what}.png`, fullPage: true });
  return page;
}

const page = await visit("light", { viewport: { width: 1280, height: 900 } });

// The overview lives, and nothing in it moves.
await page.goto(url);
await page.locator('[data-chart="rate"] canvas').waitFor();
await page.waitForFunction(() => document.querySelector('[data-now="rate"]').textContent !== "–");
const first = await page.evaluate(() => document.querySelector("#board .quiet").textContent);
await page.waitForFunction((first) => document.querySelector("#board .quiet").textContent !== first, first);
assert.ok(await page.evaluate(() => window.shift) < 0.02, `the layout shifts by ${await page.evaluate(() => window.shift)}`);
await page.shot("overview");

// By keyboard: to the content, to the field, and to an event.
await page.keyboard.press("Tab");
assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
await page.keyboard.press("/");
await page.keyboard.type(id(6));
await page.keyboard.press("Enter");
await page.getByText("message 1 of EVENTS").waitFor();
await page.getByText("waiting").first().waitFor(); // a consumer
await page.shot("published");

// In two clicks from the overview to the story of a failed event.
await page.getByRole("link", { name: "Overview" }).click();
await page.getByRole("link", { name: /maximum allowed/ }).click();
await page.getByRole("link", { name: id(7) }).first().click();
await page.getByText("message size exceeds").first().waitFor();
await page.shot("failed");

// It is redriven, with a token.
await page.getByRole("link", { name: "Redrive…" }).click();
await page.getByText("1 event", { exact: true }).waitFor();
assert.equal(await page.getByRole("button", { name: /^Redrive/ }).count(), 0);
await page.getByRole("link", { name: "Sign in" }).click();
await page.getByLabel("Token of the console").fill("wrong");
await page.getByRole("button", { name: "Sign in" }).click();
await page.getByText("This is not the token").waitFor();
await page.getByLabel("Token of the console").fill(token);
await page.getByRole("button", { name: "Sign in" }).click();
await page.getByRole("button", { name: "Redrive 1 event" }).waitFor();
await page.shot("ask");
await ask("mend");
await page.getByRole("button", { name: "Redrive 1 event" }).click();
await page.getByText("1 event tried again.").waitFor();
for (let tries = 0; (await page.locator(".state.published").count()) === 0; tries++) {
  assert.ok(tries < 60, "the redriven event is not published");
  await page.waitForTimeout(300);
  await page.goto(`${url}event?id=${id(7)}`);
}
await page.getByText("events.refused").waitFor();

// All that a filter takes, with a count and a confirmation; the relay restarts meanwhile.
await page.getByRole("link", { name: "Delayed" }).click();
await page.shot("delayed");
await page.getByLabel("Error contains").fill("lower-case letters");
await page.getByRole("button", { name: "Show" }).click();
await page.getByRole("link", { name: "Discard…" }).click();
await page.getByText("whose last error contains lower-case letters").waitFor();
const open = await visit("open", { viewport: { width: 1280, height: 900 } });
await open.goto(url);
await open.waitForFunction(() => document.querySelector('[data-now="rate"]').textContent !== "–");
await ask("restart");
await page.getByRole("button", { name: "Discard 3 events" }).click();
await page.getByText("3 events discarded.").waitFor();
await open.waitForFunction(() => document.querySelector("[data-live]").hidden);
await open.waitForFunction(() => document.querySelector('[data-now="rate"]').textContent !== "–");

// One is cancelled, one rescheduled.
await page.goto(`${url}event?id=${id(5)}`);
await page.getByRole("link", { name: "Reschedule…" }).click();
await page.getByLabel(/^New time/).fill("tomorrow");
await page.getByRole("button", { name: "Reschedule 1 event" }).click();
await page.getByText("is neither a time").waitFor();
await page.getByLabel(/^New time/).fill("2030-01-02T15:04:05Z");
await page.getByRole("button", { name: "Reschedule 1 event" }).click();
await page.getByText("1 event moved.").waitFor();
await page.getByText("due 2030-01-02 15:04:05Z").waitFor();
await page.getByRole("link", { name: "Cancel…" }).click();
await page.getByRole("button", { name: "Cancel 1 event" }).click();
await page.getByText("1 event cancelled.").waitFor();

// What a handler has parked, from the overview in two clicks.
await page.getByRole("link", { name: "Overview" }).click();
await page.locator('a[href="/console/parked?handler=billing"]').click();
await page.getByText("the account is closed").first().waitFor();
await page.shot("parked");
await page.getByRole("link", { name: "Redrive…" }).click();
await page.getByRole("button", { name: "Redrive 60 events" }).click();
await page.getByText("60 events redriven.").waitFor();

// Doctor, and the end of the session.
await page.getByRole("link", { name: "Doctor" }).click();
await page.getByText(/\d+ pass/).waitFor();
await page.shot("doctor");
await page.getByRole("button", { name: "Sign out" }).click();
await page.getByRole("link", { name: "Sign in" }).waitFor();

// In the dark, and on a phone: no page is wider than the screen.
for (const [name, options] of [
  ["dark", { viewport: { width: 1280, height: 900 }, colorScheme: "dark" }],
  ["phone", { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 }],
]) {
  const other = await visit(name, options);
  for (const path of ["", "delayed", "handlers", "parked", "doctor", "sign-in", `event?id=${id(1)}`, `event?id=${id(4)}`, "delayed/discard?type=large", "nothing"]) {
    const answer = await other.goto(url + path);
    assert.equal(answer.status(), path === "nothing" ? 404 : 200, path);
    if (path === "") await other.locator('[data-chart="lag"] canvas').waitFor();
    const [wide, screen] = await other.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    assert.ok(wide <= screen, `${name}: ${path} is ${wide} wide`);
    await other.shot(path.replace(/\W+/g, "-") || "overview");
  }
}
await browser.close();
assert.deepEqual(problems, []);
console.log("all is well");
process.exit(0);
