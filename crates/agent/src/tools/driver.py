# Takes pieces of code from standard input and answers one line each on what was standard output.
# All that the code prints goes to standard error, which ends each piece with the mark of its request.
import ast
import json
import linecache
import os
import signal
import sys
import traceback

ARTEFACTS = sys.argv.pop()
DRIVER_PID = os.getpid()


def serve():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    scope = {"__name__": "__main__", "__builtins__": __builtins__}
    n_calls = 0
    while line := requests.readline():
        request = json.loads(requests.read(int(line)))
        n_calls += 1
        done = run(request["code"], f"<call {n_calls}>", scope)
        if os.getpid() != DRIVER_PID:
            os._exit(0)  # a fork of the code came back here
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass
        mark = request["mark"].encode()
        while mark:
            mark = mark[os.write(2, mark):]
        replies.write(b"done\n" if done else b"raised\n")
        replies.flush()


def run(code, name, scope):
    linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), scope)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), name, "eval"), scope)
            if value is not None:
                scope["_"] = value
                show(value)
        keep_figures()
        return True
    except SystemExit as error:
        print(f"(exit {error.code}; the interpreter stays)")
        return error.code in (None, 0)
    except BaseException as error:
        # The first frame is this one.
        inner = error.__traceback__ and error.__traceback__.tb_next
        traceback.print_exception(type(error), error, inner, file=sys.stdout)
        return False
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def unused(stem, suffix):
    n = 1
    while os.path.lexists(path := os.path.join(ARTEFACTS, f"{stem}-{n}.{suffix}")):
        n += 1
    return path


def show(value):
    pandas, image = sys.modules.get("pandas"), sys.modules.get("PIL.Image")
    if pandas and isinstance(value, (pandas.DataFrame, pandas.Series)):
        value.to_csv(unused("table", "csv"))
        print(value.to_string(max_rows=20))
    elif image and isinstance(value, image.Image):
        value.save(unused("image", "png"))
    else:
        print(repr(value))


def keep_figures():
    pyplot = sys.modules.get("matplotlib.pyplot")
    for number in pyplot.get_fignums() if pyplot else ():
        pyplot.figure(number).savefig(unused("figure", "png"))
    if pyplot:
        pyplot.close("all")


serve()
