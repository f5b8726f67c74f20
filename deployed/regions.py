"""The regions of AWS, as botocore knows them."""

import botocore.session


def has_sagemaker(region: str) -> bool:
    session = botocore.session.get_session()
    partitions = session.get_available_partitions()
    return any(region in session.get_available_regions("sagemaker", partition) for partition in partitions)
