"""The SageMaker that AWS emulators lack: jobs, tuning, the model registry, models, endpoints and InvokeEndpoint.

Deliberately small: only the operations that one stack uses. Each request and answer is checked against botocore's
service model; unsupported members are refused by name, never ignored.

host.py         shared by all parts: names, the stack, lists
wire.py         requests, answers and errors; service.py finds the part that answers an operation
jobs.py         the base of every kind of job; container.py runs a job's processes
channels.py     S3 to folders and back; logs.py the job's log
training.py, processing.py, transform.py, tuning.py (search.py), packages.py, tags.py
endpoints.py    models and endpoints; server.py one serving process
"""
