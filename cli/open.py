"""`bintally open`: opens the web page."""

import click

from cli.stacks import choice, chosen, on_this_machine


@click.command()
@click.option("--print", "only_print", is_flag=True, help="Print the address, and open nothing.")
def command(only_print: bool) -> None:
    """Open the stack's web page in a browser, and print its address.

    On this machine it also prints the names and passwords of the demo people, once `bintally demo` has added them.
    People of a stack on AWS get theirs with `bintally people add`.
    """
    from deployed.errors import NotDeployed

    outputs = chosen().outputs()
    if "ApiUrl" not in outputs:
        raise NotDeployed("this stack has no web page yet. Update it (docs/operations.md)")
    address = f"{outputs['ApiUrl']}/"
    click.echo(address)
    if choice().name is None:
        from local.people import demo_people

        passwords = demo_people(on_this_machine().home)
        for name, password in passwords.items():
            click.echo(f"  {name:<8} {password}")
        if not passwords:
            click.echo("Nobody may sign in yet. Add demo people: bintally demo. Add a person: bintally people add")
    if not only_print:
        click.launch(address)
