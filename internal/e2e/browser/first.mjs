// Redrives what the demo's handler has parked, by clicks.
import { chromium } from "playwright-core";

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const page = await browser.newPage();
page.setDefaultTimeout(20_000);
await page.goto(process.env.CONSOLE_URL);
await page.getByRole("link", { name: "Sign in" }).click();
await page.getByLabel("Token of the console").fill(process.env.CONSOLE_TOKEN);
await page.getByRole("button", { name: "Sign in" }).click();
await page.locator('a[href="/console/parked?handler=billing"]').click();
await page.locator('a[href^="/console/event"]').first().click();
await page.getByText("the account is closed").first().waitFor();
await page.getByRole("link", { name: "Redrive…" }).click();
await page.getByRole("button", { name: "Redrive 1 event" }).click();
await page.getByText("1 event redriven.").waitFor();
await browser.close();
