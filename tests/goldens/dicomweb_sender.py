"""Stores files by the package dicomweb-client, all in one request, and prints the answer as DICOM JSON.

    dicomweb_sender.py URL FILE...
"""
import json
import sys

import pydicom
from dicomweb_client.api import DICOMwebClient

client = DICOMwebClient(url=sys.argv[1])
answer = client.store_instances([pydicom.dcmread(file) for file in sys.argv[2:]])
print(json.dumps(answer.to_json_dict()))
