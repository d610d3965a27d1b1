"""What the official conformance suite wants a server to have, for both eras, on the Python SDK 2.x.

The suite's scenarios tell what each of these has to answer.
"""

import asyncio
import base64
import json
from typing import Annotated

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp_types import (
    AudioContent,
    CallToolResult,
    Completion,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    EmbeddedResource,
    ImageContent,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    TextContent,
    TextResourceContents,
)
from pydantic import BaseModel, Field

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SILENCE = base64.b64encode(b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\0\0\0\0").decode()


def image():
    return ImageContent(type="image", data=PIXEL, mime_type="image/png")


def embedded(uri, mime_type, text):
    resource = TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    return EmbeddedResource(type="resource", resource=resource)


def text(value):
    return TextContent(type="text", text=value)


def done(value):
    return CallToolResult(content=[text(value)])


def form(message, **fields):
    """A question to the user."""
    properties = {name: {"type": kind} for name, kind in fields.items()}
    schema = {"type": "object", "properties": properties, "required": list(fields)}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(prompt, tokens=100):
    """A question to the client's model."""
    messages = [SamplingMessage(role="user", content=text(prompt))]
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=messages, max_tokens=tokens))


def given(ctx, *keys):
    """What the client has answered to all of these, or nothing."""
    answers = ctx.input_responses or {}
    return [answers[key] for key in keys] if all(key in answers for key in keys) else None


class Answer(BaseModel):
    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


class Defaults(BaseModel):
    name: str = Field(default="John Doe")
    age: int = Field(default=30)
    score: float = Field(default=95.5)
    status: str = Field(default="active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = Field(default=True)


ONE = [{"const": f"value{number}", "title": title} for number, title in enumerate(["First", "Second", "Third"], 1)]
OPTIONS = ["option1", "option2", "option3"]


class Enums(BaseModel):
    untitledSingle: str = Field(json_schema_extra={"enum": OPTIONS})
    titledSingle: str = Field(json_schema_extra={"oneOf": ONE})
    legacyEnum: str = Field(
        json_schema_extra={"enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]}
    )
    untitledMulti: list[str] = Field(json_schema_extra={"items": {"type": "string", "enum": OPTIONS}})
    titledMulti: list[str] = Field(json_schema_extra={"items": {"anyOf": ONE}})


def add_to(server: MCPServer):
    add_contents(server)
    add_conversations(server)
    add_rounds(server)
    add_resources(server)
    add_prompts(server)


def add_contents(server):
    @server.tool(description="For a test")
    async def test_simple_text() -> str:
        return "This is a simple text response for testing."

    @server.tool(structured_output=False, description="For a test")
    async def test_image_content() -> ImageContent:
        return image()

    @server.tool(structured_output=False, description="For a test")
    async def test_audio_content() -> AudioContent:
        return AudioContent(type="audio", data=SILENCE, mime_type="audio/wav")

    @server.tool(structured_output=False, description="For a test")
    async def test_embedded_resource() -> EmbeddedResource:
        return embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")

    @server.tool(structured_output=False, description="For a test")
    async def test_multiple_content_types() -> list:
        value = json.dumps({"test": "data", "value": 123})
        mixed = embedded("test://mixed-content-resource", "application/json", value)
        return [text("Multiple content types test:"), image(), mixed]

    @server.tool(description="For a test")
    async def test_error_handling() -> CallToolResult:
        failed = done("This tool intentionally returns an error for testing")
        return failed.model_copy(update={"is_error": True})

    @server.tool(description="For a test")
    async def test_header(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
        return region


def add_conversations(server):
    @server.tool(description="For a test")
    async def test_tool_with_logging(ctx: Context) -> str:
        for step in ["Tool execution started", "Tool processing data", "Tool execution completed"]:
            await ctx.info(step)
            await asyncio.sleep(0.05)
        return "Logged"

    @server.tool(description="For a test")
    async def test_tool_with_progress(ctx: Context) -> str:
        for step in [0, 50, 100]:
            await ctx.report_progress(step, 100)
            await asyncio.sleep(0.05)
        return "Progressed"

    @server.tool(description="For a test")
    async def test_reconnection(ctx: Context) -> str:
        await ctx.close_sse_stream()
        await asyncio.sleep(0.2)
        return "Reconnection test completed"

    @server.tool(description="For a test")
    async def test_sampling(prompt: str, ctx: Context) -> str:
        asked = [SamplingMessage(role="user", content=text(prompt))]
        answer = await ctx.session.create_message(asked, max_tokens=100, related_request_id=ctx.request_id)
        return f"LLM response: {getattr(answer.content, 'text', answer.content)}"

    def asks(name, schema, opening):
        @server.tool(name, description="For a test")
        async def tool(ctx: Context, message: str = "Please answer") -> str:
            answer = await ctx.elicit(message, schema)
            content = answer.data.model_dump_json() if answer.action == "accept" else "{}"
            return f"{opening}: action={answer.action}, content={content}"

    asks("test_elicitation", Answer, "User response")
    asks("test_elicitation_sep1034_defaults", Defaults, "Elicitation completed")
    asks("test_elicitation_sep1330_enums", Enums, "Elicitation completed")


def add_rounds(server):
    """The questions of 2026-07-28, which a result asks and the repeated call answers."""

    def asks(name, state, **requests):
        @server.tool(f"test_input_required_result_{name}", description="For a test")
        async def tool(ctx: Context) -> CallToolResult | InputRequiredResult:
            answers = given(ctx, *requests)
            if answers is None:
                return InputRequiredResult(input_requests=requests, request_state=state)
            return done(f"{name}, state-ok: {[answer.model_dump(mode='json') for answer in answers]}")

    asks("elicitation", None, user_name=form("What is your name?", name="string"))
    asks("sampling", None, capital_question=sample("What is the capital of France?"))
    asks("list_roots", None, client_roots=ListRootsRequest())
    asks("request_state", "asked", confirm=form("Please confirm", ok="boolean"))
    asks("tampered_state", "asked", confirm=form("Please confirm", ok="boolean"))
    asks(
        "multiple_inputs",
        "asked",
        user_name=form("What is your name?", name="string"),
        greeting=sample("Generate a greeting", 50),
        client_roots=ListRootsRequest(),
    )

    @server.tool("test_input_required_result_multi_round", description="For a test")
    async def multi_round(ctx: Context) -> CallToolResult | InputRequiredResult:
        if ctx.request_state == "second" and given(ctx, "step2"):
            return done("Both steps are done")
        if ctx.request_state == "first" and given(ctx, "step1"):
            step = form("Step 2: What is your favorite color?", color="string")
            return InputRequiredResult(input_requests={"step2": step}, request_state="second")
        step = form("Step 1: What is your name?", name="string")
        return InputRequiredResult(input_requests={"step1": step}, request_state="first")

    @server.tool("test_input_required_result_capabilities", description="For a test")
    async def capabilities(ctx: Context) -> CallToolResult | InputRequiredResult:
        known = ctx.client_capabilities
        requests = {}
        if known and known.elicitation:
            requests["user_name"] = form("What is your name?", name="string")
        if known and known.sampling:
            requests["greeting"] = sample("Generate a greeting", 50)
        if not requests or given(ctx, *requests):
            return done("Done")
        return InputRequiredResult(input_requests=requests)

    @server.prompt("test_input_required_result_prompt")
    async def prompt(ctx: Context) -> list[UserMessage] | InputRequiredResult:
        """Asks for its context."""
        if given(ctx, "user_context") is None:
            asked = form("What context should the prompt use?", context="string")
            return InputRequiredResult(input_requests={"user_context": asked})
        return [UserMessage("Use the context")]


def add_resources(server):
    @server.resource("test://static-text", mime_type="text/plain", description="A text")
    async def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png", description="A picture")
    async def static_binary() -> bytes:
        return base64.b64decode(PIXEL)

    @server.resource("test://watched-resource", mime_type="text/plain", description="A watched text")
    async def watched() -> str:
        return "Watched resource content"

    @server.resource("test://template/{id}/data", mime_type="application/json")
    async def template(id: str) -> str:
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})

    @server.completion()
    async def complete(ref, argument, context) -> Completion:
        return Completion(values=["paris", "park"], total=2, has_more=False)


def add_prompts(server):
    @server.prompt()
    async def test_simple_prompt() -> list[UserMessage]:
        """A simple prompt."""
        return [UserMessage("This is a simple prompt for testing.")]

    @server.prompt()
    async def test_prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
        """A prompt with arguments."""
        return [UserMessage(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'")]

    @server.prompt()
    async def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
        """A prompt with a resource in it."""
        inside = embedded(resourceUri, "text/plain", "Embedded resource content for testing.")
        return [UserMessage(inside), UserMessage("Please process the embedded resource above.")]

    @server.prompt()
    async def test_prompt_with_image() -> list[UserMessage]:
        """A prompt with a picture."""
        return [UserMessage(image()), UserMessage("Please analyze the image above.")]
