// Drives a running server with the Vercel `ai` package.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";

const base = process.env.BASE_URL;
const apiKey = process.env.PERILUNE_KEY;
const openai = createOpenAICompatible({ name: "perilune", baseURL: `${base}/v1`, apiKey, supportsStructuredOutputs: true });
const anthropic = createAnthropic({ baseURL: `${base}/v1`, apiKey });

function check(name, condition, shown) {
  if (!condition) {
    console.error(`FAILED ${name}:`, shown);
    process.exit(1);
  }
  console.log(`ok     ${name}`);
}

const schema = jsonSchema({
  type: "object",
  properties: { city: { type: "string", maxLength: 8 } },
  required: ["city"],
  additionalProperties: false,
});
const thinking = { perilune: { thinking: { type: "disabled" } } };
const prompt = "Name a city.";

for (const [name, model] of [
  ["openai-compatible", openai("kimi-k2-thinking")],
  ["anthropic", anthropic("kimi-k2-thinking")],
]) {
  const whole = await generateText({ model, prompt, maxOutputTokens: 16, temperature: 0 });
  check(`ai ${name} text`, whole.usage.outputTokens <= 16, whole.usage);
  const stream = streamText({ model, prompt, maxOutputTokens: 16, temperature: 0 });
  let text = "";
  for await (const part of stream.textStream) text += part;
  check(`ai ${name} stream is the same`, text === whole.text, [text, whole.text]);
}

const weather = tool({ description: "The weather", inputSchema: schema, execute: async ({ city }) => `sunny in ${city}` });
const called = await generateText({
  model: openai("kimi-k2-thinking"),
  prompt,
  tools: { weather },
  toolChoice: "required",
  maxOutputTokens: 2000,
  providerOptions: thinking,
});
check("ai tool call", called.toolResults.length > 0 && called.toolResults[0].output.startsWith("sunny in"), called.toolCalls);

const parsed = await generateObject({
  model: openai("kimi-k2-thinking"),
  prompt,
  schema,
  maxOutputTokens: 2000,
  providerOptions: thinking,
});
check("ai object", typeof parsed.object.city === "string", parsed.object);
