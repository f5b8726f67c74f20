"""The SageMaker that AWS emulators lack: jobs, tuning, the model registry, models, endpoints and InvokeEndpoint.

Small on purpose: the operations that one stack uses, each request and answer checked against botocore's own
service model; what is not supported is refused by name, never ignored.

host.py         what the parts share: names, the stack they are in, lists
wire.py         requests, answers and errors; service.py finds the part that answers an operation
jobs.py         what jobs of every kind have in common; container.py runs the processes of one
channels.py     S3 to folders and back; logs.py the job's log
training.py, processing.py, transform.py, tuning.py (search.py), packages.py, tags.py
endpoints.py    models and endpoints; server.py one serving process
"""
