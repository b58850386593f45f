"""Looking at a path before it is opened, and reading bytes of a file that is open."""

from __future__ import annotations

import os
import stat

import numpy as np
import numpy.typing as npt

from vtp.media.info import MediaError

__all__ = ["CONTAINERS", "check_source", "fill"]

# What FFmpeg may open, by its own names. Playlists and scripts (hls, dash, concat, imf, sdp, lavfi ...) are not among
# them: a file with the name of a video would make it read other files, outside of the folder of the data set.
CONTAINERS = ",".join(
    (
        "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpegtsraw,mpeg,mpegvideo,m4v,flv,live_flv,kux,asf,asf_o,ogg,rm,nut",
        "mxf,gxf,dv,ivf,obu,h264,hevc,vvc,evc,vc1,vc1test,h261,h263,avs,avs2,avs3,cavsvideo,dirac,dnxhd,mjpeg,mjpeg_2000",
        "ingenient,smjpeg,swf,wtv,ty,nsv,nuv,pva,dhav,dxa,bink,smk,roq,4xm,flic,film_cpk,idcin,ipmovie,psxstr,thp,vmd,wc3movie",
        "lmlm4,lvf,lxf,mlv,mv,mvi,mtv,ea,rl2,rpl,siff,xmv,xwma,yop,yuv4mpegpipe,cine,apng,gif,ipu,kvag,moflex,usm,vividas",
        "wav,w64,aiff,au,caf,flac,mp3,aac,ac3,ac4,eac3,dts,dtshd,truehd,mlp,amr,amrnb,amrwb,ape,tta,tak,wv,mpc,mpc8,voc,gsm",
        "oma,aea,dsf,iff,shn,sox,loas,adx,ast,bfstm,brstm,hca,iamf,codec2,dss,ilbc,mmf,qcp,qoa,rso,sbc,tta,vqf,wsaud,xa,aptx",
        "image2,ico,fits,jpegxl_anim,bmp_pipe,cri_pipe,dds_pipe,dpx_pipe,exr_pipe,gem_pipe,gif_pipe,hdr_pipe,j2k_pipe",
        "jpeg_pipe,jpegls_pipe,jpegxl_pipe,jpegxs_pipe,pam_pipe,pbm_pipe,pcx_pipe,pfm_pipe,pgm_pipe,pgmyuv_pipe,pgx_pipe",
        "phm_pipe,photocd_pipe,pictor_pipe,png_pipe,ppm_pipe,psd_pipe,qdraw_pipe,qoi_pipe,sgi_pipe,sunrast_pipe,tiff_pipe",
        "vbn_pipe,webp_pipe,xbm_pipe,xpm_pipe,xwd_pipe",
    )
)


def check_source(path: str) -> None:
    """Refuse what must not even be opened: a FIFO would block for ever, a device may do anything.

    Raises:
        MediaError: names the cause.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise MediaError("no such file", "missing") from None
    except PermissionError:
        raise MediaError("no permission to reach the file", "permission") from None
    except OSError as error:  # a symlink loop, a name that is too long
        raise MediaError(f"cannot be reached: {error.strerror}", "missing") from None
    except ValueError as error:  # a null byte in the name
        raise MediaError(f"not a valid path: {error}", "missing") from None
    if stat.S_ISDIR(status.st_mode):
        raise MediaError("is a directory", "not_a_file")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError("is not a regular file but a pipe, socket or device", "not_a_file")
    if not os.access(path, os.R_OK):
        raise MediaError("no permission to read the file", "permission")
    if status.st_size == 0:
        raise MediaError("the file is empty", "empty")


def fill(block: npt.NDArray[np.uint8], file: int, offset: int) -> bool:
    """Read ``block`` (S,) from ``offset`` of an open file (its descriptor) on; False if the file ends before."""
    done = 0
    while done < len(block):
        got = os.preadv(file, [block[done:].data], offset + done)
        if got == 0:
            return False
        done += got
    return True
